"""How do requests behave when Redis is killed, paused, flushed, full, slow, silent or disconnected?

Question  Under a constant load of recommendations: do requests fail, how long do they take, how many answers lack
          embeddings, and how long does full quality take to return after Redis recovers?
Method    The service in this process on a tiny model, embeddings in a dedicated redis-server behind a proxy, no
          in-process tier, no fallback, a 20 ms budget for Redis, checked every 250 ms. Each fault lasts --seconds under
          a constant load of three clients. `back after` is the time from recovery (the server responds and contains the
          embeddings) to the first of three consecutive answers with all embeddings.
Output    For each fault: requests, failures, p50, p99 and the share of degraded answers before and during it, and the
          time to full quality; the last line is JSON.

    python -m benchmarks.feature_faults [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from pydantic import SecretStr

from benchmarks.own_redis import OwnRedis, hurtable_redis
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import linked
from feature_cache.remote.loading import LoadOptions, load
from feature_cache.store import FeatureSpace
from model.bundle.features import ItemFeatures, load_features
from model.planning.runtime import Runtime, load_runtime
from service.http.app import create_app
from service.settings.settings import Settings
from tests.e2e.proxy import Proxy, proxy_to
from tests.service.conftest import client_of
from tests.tiny import tiny_bundle

NUM_CLIENTS = 3
DEADLINE_MS = 2000
SLOW_S = 0.05


@dataclass(frozen=True)
class Sample:
    """One request."""

    ended_at: float
    duration_s: float
    is_answered: bool
    is_full: bool


@dataclass
class Ground:
    """The system under test."""

    redis: OwnRedis
    proxy: Proxy
    source: ItemFeatures
    client: httpx.AsyncClient
    samples: list[Sample] = field(default_factory=list)

    async def fill(self) -> None:
        space = FeatureSpace("toys", "vitb32", self.source.dim)
        async with linked(RedisAddress.parse(f"redis://127.0.0.1:{self.redis.port}"), 5.0) as link:
            await load(link, space, self.source, LoadOptions("float32", grace_s=0.0), lambda *_: None)

    async def set_max_memory(self, limit: int) -> None:
        async with linked(RedisAddress.parse(f"redis://127.0.0.1:{self.redis.port}"), 5.0) as link:
            await link.run("CONFIG", "SET", "maxmemory", limit)

    async def flush(self) -> None:
        async with linked(RedisAddress.parse(f"redis://127.0.0.1:{self.redis.port}"), 5.0) as link:
            await link.run("FLUSHALL")


Step = Callable[[Ground], Awaitable[None]]


async def kill(ground: Ground) -> None:
    ground.redis.kill()


async def restart(ground: Ground) -> None:
    await asyncio.to_thread(ground.redis.start)
    await ground.fill()


async def pause(ground: Ground) -> None:
    ground.redis.send(signal.SIGSTOP)


async def resume(ground: Ground) -> None:
    ground.redis.send(signal.SIGCONT)


async def slow_down(ground: Ground) -> None:
    ground.proxy.delay_s = SLOW_S


async def silence(ground: Ground) -> None:
    ground.proxy.silence()


async def cut(ground: Ground) -> None:
    ground.proxy.cut()


async def mend(ground: Ground) -> None:
    ground.proxy.mend()


FAULTS: dict[str, tuple[Step, Step]] = {
    "killed, restarted empty": (kill, restart),
    "paused": (pause, resume),
    "flushed": (Ground.flush, Ground.fill),
    "full": (lambda ground: ground.set_max_memory(1), lambda ground: ground.set_max_memory(0)),
    f"slowed by {SLOW_S * 1000:.0f} ms": (slow_down, mend),
    "silent": (silence, mend),
    "cut off": (cut, mend),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the effect of Redis faults on requests.")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, hurtable_redis(Path(folder)) as redis:
        bundle = tiny_bundle(Path(folder))
        found = asyncio.run(_measure(redis, bundle, load_runtime(bundle, num_threads=1), options.seconds))
    print(json.dumps({"benchmark": "feature_faults", "seconds": options.seconds, "faults": found}))
    return 1 if any(each["failed"] for each in found.values()) else 0


async def _measure(redis: OwnRedis, bundle: Path, runtime: Runtime, seconds: float) -> dict[str, dict[str, Any]]:
    found = {}
    async with proxy_to(redis.port) as proxy:
        settings = Settings(
            bundle=bundle,
            feature_store="redis",
            feature_fallback="none",
            feature_tier_mb=0,
            redis_url=SecretStr(proxy.url),
        )
        async with client_of(create_app(settings, lambda _: runtime)) as client:
            ground = Ground(redis, proxy, load_features(runtime.feature_files["toys"]), client)
            await ground.fill()
            clients = [asyncio.create_task(_ask(ground, number)) for number in range(NUM_CLIENTS)]
            await _until_full(ground)
            for name, (break_it, mend_it) in FAULTS.items():
                found[name] = await _hurt(ground, break_it, mend_it, seconds)
                print(f"{name:24} {found[name]}")
            for each in clients:
                each.cancel()
    return found


async def _ask(ground: Ground, number: int) -> None:
    body = {"domain": "toys", "k": 3, "deadline_ms": DEADLINE_MS}
    while True:
        number += 1
        history = [f"item-{place}" for place in range(number % 90 + 1, number % 90 + 21) if place % 11]
        started = time.perf_counter()
        response = await ground.client.post("/recommend/sequential", json=body | {"history": history})
        ended = time.perf_counter()
        is_answered = response.status_code == 200
        kinds = [each["kind"] for each in response.json().get("degraded", ())]
        is_full = is_answered and "missing_features" not in kinds
        ground.samples.append(Sample(ended, ended - started, is_answered, is_full))


async def _hurt(ground: Ground, break_it: Step, mend_it: Step, seconds: float) -> dict[str, Any]:
    ground.samples.clear()
    await asyncio.sleep(seconds)
    before, ground.samples = ground.samples, []
    await break_it(ground)
    await asyncio.sleep(seconds)
    during, ground.samples = ground.samples, []
    await mend_it(ground)
    mended_at = time.perf_counter()
    back_at = await _until_full(ground)
    everything = [*before, *during, *ground.samples]
    return {
        "requests": len(everything),
        "failed": sum(not sample.is_answered for sample in everything),
        "before_ms": asdict(_Percentiles.of(before)),
        "during_ms": asdict(_Percentiles.of(during)),
        "degraded_before": _degraded_share(before),
        "degraded_during": _degraded_share(during),
        "back_after_ms": max(0, round((back_at - mended_at) * 1000)),
    }


def _degraded_share(samples: list[Sample]) -> float:
    return round(sum(not sample.is_full for sample in samples) / max(1, len(samples)), 3)


@dataclass(frozen=True)
class _Percentiles:
    """Latency percentiles in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, samples: list[Sample]) -> _Percentiles:
        p50, p99 = np.percentile([sample.duration_s * 1000 for sample in samples], [50, 99])
        return cls(round(float(p50), 1), round(float(p99), 1))


async def _until_full(ground: Ground) -> float:
    """The time of the first of three consecutive answers with all embeddings."""
    num_seen = len(ground.samples)
    row: list[Sample] = []
    while len(row) < 3:
        await asyncio.sleep(0.005)
        for sample in ground.samples[num_seen:]:
            row = [*row, sample] if sample.is_full else []
        num_seen = len(ground.samples)
    return row[0].ended_at


if __name__ == "__main__":
    sys.exit(main())
