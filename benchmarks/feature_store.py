"""How long does fetching a prompt's embeddings take, and how much Redis memory do embeddings need?

Question  get_many of 20 and of 100 items of width 512: from Redis with this project's store (`packed`), with one MGET
          over a key per item, with one GET per item, with RedisVL's embedding cache (`mget`), and from the in-process
          tier. How many embeddings are loaded per second, how much Redis memory does one take in each layout, and how
          does this change with a million of them (--items 1000000)?
Method    A dedicated redis-server on loopback. All contenders answer the same random look-ups, interleaved in rotating
          order, after a warm-up. Memory is the growth of `used_memory`. Loaded embeddings are compared with the source.
          RedisVL needs other versions of libraries, so it runs in its own environment against the same server, with the
          same number of items per call out of 2,000: `python -m venv V && V/bin/pip install redisvl hiredis`, then
          --redisvl V/bin/python (default: skip RedisVL).
Output    Microseconds at p50, p95 and p99, ratios, embeddings per second, bytes per item; the last line is JSON.

    python -m benchmarks.feature_store [--items 20000] [--lookups 1000] [--redisvl PYTHON]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from benchmarks.own_redis import own_redis
from feature_cache.background import Background
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import linked
from feature_cache.remote.loading import LoadOptions, load
from feature_cache.remote.reader import ReadLimits
from feature_cache.store import FeatureSpace, NoObserver
from feature_cache.tiered import TieredStore, open_tiered

DIM = 512
RAW_BYTES = 2 * DIM
SPACE = FeatureSpace("toys", "vitb32", DIM)
LIMITS = ReadLimits(budget_s=5.0, max_concurrent=16, refresh_s=3600.0)
SIZES = (20, 100)
REDISVL_ITEMS = 2_000  # loads one item at a time, so fewer items suffice
REDISVL = Path(__file__).with_name("redisvl_lookups.py")

Lookup = Callable[[Sequence[str]], Awaitable[object]]


@dataclass(frozen=True)
class Latency:
    """Microseconds per call."""

    p50_us: float
    p95_us: float
    p99_us: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        p50, p95, p99 = np.percentile(np.asarray(seconds) * 1e6, [50, 95, 99])
        return cls(round(float(p50), 1), round(float(p95), 1), round(float(p99), 1))


class RandomSource:
    """Embeddings drawn from a small pool, so that a million of them fit into memory."""

    def __init__(self, num_items: int) -> None:
        self._pool = np.random.default_rng(0).standard_normal((4096, DIM)).astype(np.float16)
        self._item_ids = [f"B{number * 7919 % 10**10:010d}" for number in range(num_items)]

    @property
    def item_ids(self) -> Sequence[str]:
        return self._item_ids

    @property
    def dim(self) -> int:
        return DIM

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        return self._pool[places % len(self._pool)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how embeddings are fetched from Redis.")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--lookups", type=int, default=1_000)
    parser.add_argument("--redisvl", help="Python interpreter of an environment with redisvl (default: skip RedisVL)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, own_redis(Path(folder)) as port:
        found = asyncio.run(_measure(port, options.items, options.lookups))
        if options.redisvl:
            found["redisvl"] = _redisvl(options.redisvl, port, options.lookups)
            for size in SIZES:
                ratio = round(
                    found["redisvl"][str(size)]["p50_us"] / found["latency"]["packed"][str(size)]["p50_us"], 1
                )
                print(f"redisvl {size:4} items: {found['redisvl'][str(size)]}, {ratio} times ours")
    print(json.dumps({"benchmark": "feature_store", **_versions(), "items": options.items, **found}))
    return 0


async def _measure(port: int, num_items: int, num_lookups: int) -> dict[str, Any]:
    source = RandomSource(num_items)
    url = f"redis://127.0.0.1:{port}"
    client = Redis(port=port, protocol=3, socket_timeout=None)
    memory, rates = {}, {}
    before = await _used(client)
    started = time.perf_counter()
    async with linked(RedisAddress.parse(url), 5.0) as link:
        await load(link, SPACE, source, LoadOptions(grace_s=0.0), lambda *_: None)
    rates["packed"] = round(num_items / (time.perf_counter() - started))
    memory["packed"] = (await _used(client) - before) / num_items
    before, started = await _used(client), time.perf_counter()
    await _load_keys(client, source)
    rates["key per item"] = round(num_items / (time.perf_counter() - started))
    memory["key per item"] = (await _used(client) - before) / num_items
    for layout, size in memory.items():
        print(
            f"{layout:14} {size:7.0f} bytes an item, {size / RAW_BYTES:.3f} of its raw bytes; {rates[layout]} loaded/s"
        )
    latency: dict[str, dict[str, object]] = {}
    async with (
        open_tiered(RedisAddress.parse(url), LIMITS, NoObserver(), Background(), tier_bytes=0) as plain,
        open_tiered(RedisAddress.parse(url), LIMITS, NoObserver(), Background(), tier_bytes=10**9) as kept,
    ):
        await plain.watch(SPACE)
        await kept.watch(SPACE)
        await _check(plain, source)
        for size in SIZES:
            for name, times in (await _in_turn(plain, kept, client, source, size, num_lookups)).items():
                found = Latency.of(times)
                latency.setdefault(name, {})[str(size)] = asdict(found)
                print(f"{name:14} {size:4} items: {found.p50_us:8.1f} / {found.p95_us:8.1f} / {found.p99_us:8.1f} µs")
    await client.aclose()
    ratios = {name: round(size / RAW_BYTES, 4) for name, size in memory.items()}
    return {"lookups": num_lookups, "memory_ratio": ratios, "loaded_per_s": rates, "latency": latency}


async def _in_turn(
    plain: TieredStore, kept: TieredStore, client: Redis, source: RandomSource, size: int, num_lookups: int
) -> dict[str, list[float]]:
    """Seconds of each look-up by contender, interleaved."""

    async def one_get_each(item_ids: Sequence[str]) -> object:
        return [await client.get(_key(each)) for each in item_ids]

    contenders: dict[str, Lookup] = {
        "packed": lambda item_ids: plain.get_many(SPACE, item_ids),
        "MGET": lambda item_ids: client.mget([_key(each) for each in item_ids]),
        "one GET each": one_get_each,
        "process": lambda item_ids: kept.get_many(SPACE, item_ids),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    picks = np.random.default_rng(1).integers(0, len(source.item_ids), (num_lookups + 20, size))
    for number, pick in enumerate(picks.tolist()):
        item_ids = [source.item_ids[place] for place in pick]
        await kept.get_many(SPACE, item_ids)  # fills the in-process tier
        order = [*contenders.items()]
        for name, lookup in (*order[number % len(order) :], *order[: number % len(order)]):
            if name == "one GET each" and number // 4 % 4:  # slow, so it answers only some look-ups
                continue
            started = time.perf_counter()
            await lookup(item_ids)
            if number >= 20:
                times[name].append(time.perf_counter() - started)
    return times


async def _check(store: TieredStore, source: RandomSource) -> None:
    places = np.arange(0, len(source.item_ids), max(1, len(source.item_ids) // 1000))
    batch = await store.get_many(SPACE, [source.item_ids[place] for place in places.tolist()])
    if not batch.is_present.all() or not np.array_equal(batch.features, source.rows(places).astype(np.float32)):
        raise SystemExit("the embeddings read differ from those loaded")


def _key(item_id: str) -> str:
    return f"vip5:features:toys:vitb32:20260101T000000-0000:{item_id}"


async def _load_keys(client: Redis, source: RandomSource) -> None:
    for begin in range(0, len(source.item_ids), 2000):
        places = np.arange(begin, min(begin + 2000, len(source.item_ids)))
        rows = source.rows(places)
        values = {_key(source.item_ids[place]): row.tobytes() for place, row in zip(places.tolist(), rows, strict=True)}
        await client.mset(values)


async def _used(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


def _redisvl(python: str, port: int, num_lookups: int) -> dict[str, dict[str, float]]:
    command = [python, str(REDISVL), str(port), str(REDISVL_ITEMS), str(DIM), str(num_lookups), *map(str, SIZES)]
    done = subprocess.run(  # noqa: S603 - the caller's interpreter
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"redisvl failed: {done.stderr[-500:]}")
    measured = json.loads(done.stdout.splitlines()[-1])
    return {size: asdict(Latency.of(seconds)) for size, seconds in measured.items()}


def _versions() -> dict[str, str]:
    names = ("redis", "hiredis", "numpy", "theine-core")
    cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


if __name__ == "__main__":
    sys.exit(main())
