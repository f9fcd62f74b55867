"""RedisVL's part of `benchmarks.feature_store`; runs in an environment with redisvl, and prints seconds as JSON.

python redisvl_lookups.py PORT ITEMS DIM LOOKUPS SIZE…
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

from redisvl.extensions.cache.embeddings import EmbeddingsCache  # type: ignore[import-not-found]  # not in our environment


async def main(port: int, num_items: int, dim: int, num_lookups: int, sizes: list[int]) -> None:
    cache = EmbeddingsCache(name="rvl", redis_url=f"redis://127.0.0.1:{port}")
    generator = random.Random(0)
    names = [f"item-{number}" for number in range(num_items)]
    items = [
        {"content": name, "model_name": "vitb32", "embedding": [generator.gauss(0, 1) for _ in range(dim)]}
        for name in names
    ]
    for begin in range(0, num_items, 500):
        await cache.amset(items[begin : begin + 500])
    found: dict[int, list[float]] = {}
    for size in sizes:
        for number in range(num_lookups + 20):
            pick = generator.sample(names, size)
            started = time.perf_counter()
            answers = await cache.amget(pick, "vitb32")
            duration = time.perf_counter() - started
            assert all(answer is not None for answer in answers)
            if number >= 20:
                found.setdefault(size, []).append(duration)
    print(json.dumps(found))


if __name__ == "__main__":
    port, num_items, dim, num_lookups, *sizes = map(int, sys.argv[1:])
    asyncio.run(main(port, num_items, dim, num_lookups, sizes))
