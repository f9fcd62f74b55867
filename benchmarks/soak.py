"""Does the service survive 20 minutes of faults without a failed request, a lost change or a leak?

Question  While Redis is killed and restarted, the journal's disk fills and is freed, and log readers stall: do requests
          of ordinary and unusual clients fail, is an acknowledged change of stock lost, do memory and descriptors grow,
          and are all background tasks alive at the end?
Method    Three `vip5 serve` processes on the demonstration, embeddings in one redis-server that appends to a file. One
          keeps its journal in a file on a tmpfs of 256 KiB; two share a journal in Redis. Faults take turns, each for
          --fault-seconds, with calm of the same length between them. Each kind of client asks each process in turn.
          Stock changes: an item is deactivated and activated; an acknowledged change must hold in the next answer of
          the same process. A change may be refused only while its journal's fault lasts; nothing else may fail. At the
          end all processes are restarted and must have the state that was acknowledged last.
Output    For each kind of client: requests, failures. Refused changes by journal. Resident memory and descriptors in
          the first and last quarter. What `degraded` said at the end. The last line is JSON; exit status 1 if anything
          failed.

    python -m benchmarks.soak [--minutes 20] [--fault-seconds 20]     # mounts a tmpfs, so it needs root
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.own_redis import OwnRedis
from benchmarks.soak_clients import BUNDLE, DOMAIN, ORIGIN, PAUSE_S, TIMEOUT_S, Clients, Replica, body, check
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import linked
from feature_cache.remote.loading import LoadOptions, load
from feature_cache.store import FeatureSpace
from model.bundle.bundle import open_bundle
from model.bundle.features import load_features
from tests.service.live import AUTHORIZED, TOKEN

DISK_KIB = 256
GRACE_S = 10.0
"""Time after a fault in which changes may still be refused and `degraded` may still name it."""


@contextmanager
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", folder], check=True)  # noqa: S603, S607
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S603, S607


@dataclass
class Record:
    """Counts, samples and failures of a run."""

    asked: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    rss_mb: dict[str, list[float]] = field(default_factory=dict)
    descriptors: dict[str, list[float]] = field(default_factory=dict)
    fault: str = ""
    fault_ended_at: float = 0.0

    def fail(self, kind: str, replica: Replica, error: Exception) -> None:
        self.failed[kind] += 1
        self.failures.append(f"{kind} at {replica.name} during {self.fault or 'calm'}: {type(error).__name__}: {error}")
        print(self.failures[-1], flush=True)

    def excuses(self, journal: str) -> bool:
        """Whether a change may be refused now: its journal's fault lasts, or has just ended."""
        kinds = {"file": "disk", "redis": "redis"}
        is_recent = time.monotonic() < self.fault_ended_at + GRACE_S
        return self.fault.startswith(kinds[journal]) or (is_recent and not self.fault)


async def keep_asking(
    kind: str, ask: Callable[[Replica, int], Awaitable[None]], replicas: list[Replica], record: Record
) -> None:
    for number in itertools.count():
        replica = replicas[number % len(replicas)]
        try:
            await ask(replica, number)
        except Exception as error:  # noqa: BLE001 - any failure is a finding
            record.fail(kind, replica, error)
        record.asked[kind] += 1
        await asyncio.sleep(PAUSE_S)


class Stock:
    """Deactivates and activates one item at one replica, and knows what was acknowledged last."""

    def __init__(self, replica: Replica, client: httpx.AsyncClient, record: Record, item_id: str) -> None:
        self.replica = replica
        self.item_id = item_id
        self.is_out = False
        self.is_over = False
        """Set to end after the current change."""
        self._client = client
        self._record = record
        self._number = 0

    async def keep_changing(self) -> None:
        while not self.is_over:
            try:
                await self._change()
            except Exception as error:  # noqa: BLE001 - any failure is a finding
                self._record.fail("stock", self.replica, error)
            await asyncio.sleep(2 * PAUSE_S)

    async def is_served(self) -> bool:
        """Whether the item can be recommended."""
        asked = body(0) | {"k": 1, "include_items": [self.item_id]}
        answer = (await self._client.post("/recommend/sequential", json=asked)).json()
        return bool(answer["items"])

    async def _change(self) -> None:
        self._number += 1
        self._record.asked["stock"] += 1
        wanted = "activate" if self.is_out else "deactivate"
        path = f"/admin/domains/{DOMAIN}/catalog"
        answer = await self._client.patch(path, headers=AUTHORIZED, json={wanted: [self.item_id]})
        if answer.status_code == 200:
            self.is_out = not self.is_out
        elif answer.status_code in (409, 503) and self._record.excuses(self.replica.journal):
            self._record.refused[f"{self.replica.journal}: {answer.json()['code']}"] += 1
            if self.replica.journal == "redis":  # an unconfirmed change may have been made; what is served decides
                await asyncio.sleep(PAUSE_S)
                return
        else:
            check(holds=False, found=answer.text)
        check(holds=await self.is_served() != self.is_out, found=f"{self.item_id} is_out={self.is_out}")


# Faults


class Faults:
    """Takes turns until the end."""

    def __init__(self, redis: OwnRedis, disk: Path, replicas: list[Replica], record: Record, seconds: float) -> None:
        self._redis = redis
        self._filler = disk / "filler"
        self._replicas = replicas
        self._record = record
        self._seconds = seconds

    async def take_turns(self, until: float) -> None:
        kinds = {
            "redis is dead": (self._redis.kill, self._redis.start),
            "disk is full": (self._fill, self._filler.unlink),
            "redis does not answer": (
                lambda: self._redis.send(signal.SIGSTOP),
                lambda: self._redis.send(signal.SIGCONT),
            ),
            "log readers stall": (self._stall, self._flow),
        }
        for name in itertools.cycle(kinds):
            if time.monotonic() + 2 * self._seconds > until:
                break
            begin, end = kinds[name]
            self._record.fault = name
            await asyncio.to_thread(begin)
            await asyncio.sleep(self._seconds)
            await asyncio.to_thread(end)
            self._record.fault, self._record.fault_ended_at = "", time.monotonic()
            self._record.asked[f"fault: {name}"] += 1
            await asyncio.sleep(self._seconds)
        await asyncio.sleep(max(0.0, until - time.monotonic()))

    def _fill(self) -> None:
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1024)

    def _stall(self) -> None:
        for replica in self._replicas:
            replica.log_flows.clear()

    def _flow(self) -> None:
        for replica in self._replicas:
            replica.log_flows.set()


# The run


async def fill_redis(port: int) -> None:
    files = open_bundle(BUNDLE).domains[DOMAIN]
    assert files.features_path is not None
    assert files.spec.encoder is not None
    features = load_features(files.features_path)
    space = FeatureSpace(DOMAIN, files.spec.encoder.name, features.dim)
    async with linked(RedisAddress.parse(f"redis://127.0.0.1:{port}"), TIMEOUT_S) as link:
        await load(link, space, features, LoadOptions("float32", grace_s=0.0), lambda *_: None)


@asynccontextmanager
async def pools_of(replicas: list[Replica]) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield {
            replica.name: await stack.enter_async_context(httpx.AsyncClient(base_url=replica.url, timeout=TIMEOUT_S))
            for replica in replicas
        }


async def until_ready(client: httpx.AsyncClient) -> None:
    while (await client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110 - as an orchestrator polls
        await asyncio.sleep(PAUSE_S)


async def sample(replicas: list[Replica], record: Record) -> None:
    while True:
        for replica in replicas:
            record.rss_mb.setdefault(replica.name, []).append(replica.rss_mb())
            record.descriptors.setdefault(replica.name, []).append(replica.num_descriptors())
        await asyncio.sleep(1.0)


async def measure(replicas: list[Replica], faults: Faults, record: Record, until: float) -> dict[str, Any]:
    async with pools_of(replicas) as pools:
        for pool in pools.values():
            await until_ready(pool)
        stocks = [
            Stock(replica, pools[replica.name], record, item_id)
            for replica, item_id in zip(replicas[:2], ("toy-0003", "toy-0004"), strict=True)
        ]
        clients = Clients(pools)
        running = [
            asyncio.create_task(keep_asking(kind, ask, replicas, record)) for kind, ask in clients.kinds().items()
        ]
        changing = [asyncio.create_task(stock.keep_changing()) for stock in stocks]
        running.append(asyncio.create_task(sample(replicas, record)))
        await faults.take_turns(until)
        for stock in stocks:
            stock.is_over = True
        await asyncio.gather(*changing)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(GRACE_S)
        states = {replica.name: (await pools[replica.name].get("/health/ready")).json() for replica in replicas}
        tasks = {replica.name: await background(pools[replica.name]) for replica in replicas}
        served = {stock.item_id: await stock.is_served() for stock in stocks}
    for replica in replicas:
        check(holds=replica.stop() == 0, found=f"{replica.name} did not end with 0")
        replica.start()
    await check_restarted(replicas, stocks, served, record)
    return {"degraded": {name: state["degraded"] for name, state in states.items()}, "background": tasks}


async def background(client: httpx.AsyncClient) -> dict[str, float]:
    """Failures by background task, and log lines dropped."""
    lines = (await client.get("/metrics")).text.splitlines()
    kept = [line.split(" ") for line in lines if line.startswith(("vip5_background_", "vip5_log_", "vip5_redis_up"))]
    return {name: float(value) for name, value in kept}


async def check_restarted(
    replicas: list[Replica], stocks: list[Stock], served: Mapping[str, bool], record: Record
) -> None:
    async with pools_of(replicas) as pools:
        for pool in pools.values():
            await until_ready(pool)
        for stock in stocks:
            restarted = Stock(stock.replica, pools[stock.replica.name], Record(), stock.item_id)
            now = await restarted.is_served()
            states = {"acknowledged": not stock.is_out, "before": served[stock.item_id], "restarted": now}
            if len(set(states.values())) > 1:
                record.fail("restart", stock.replica, AssertionError(f"{stock.item_id} in stock: {states}"))


def flat(samples: list[float]) -> list[float]:
    """Medians of the first and the last quarter."""
    quarter = max(1, len(samples) // 4)
    return [round(statistics.median(part), 1) for part in (samples[:quarter], samples[-quarter:])]


def main() -> int:
    parser = argparse.ArgumentParser(description="Hurt running services and see whether they stay whole.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--fault-seconds", type=float, default=20.0)
    options = parser.parse_args()
    record = Record()
    with tempfile.TemporaryDirectory() as name, small_disk() as disk:
        folder = Path(name)
        redis = OwnRedis(folder, durable=True)
        redis.start()
        asyncio.run(fill_redis(redis.port))
        common = {
            "VIP5_HOST": "::",
            "VIP5_ADMIN_TOKEN": TOKEN,
            "VIP5_FEATURE_STORE": "redis",
            "VIP5_REDIS_URL": f"redis://127.0.0.1:{redis.port}",
            "VIP5_CORS_ORIGINS": json.dumps([ORIGIN]),
        }
        file = {"VIP5_JOURNAL": str(disk / "journal.jsonl")}
        shared = {"VIP5_JOURNAL": "redis"}
        replicas = [
            Replica("file", folder, common | file, "file"),
            Replica("redis-1", folder, common | shared, "redis"),
            Replica("redis-2", folder, common | shared, "redis"),
        ]
        try:
            for replica in replicas:
                replica.start()
            faults = Faults(redis, disk, replicas, record, options.fault_seconds)
            found = asyncio.run(measure(replicas, faults, record, time.monotonic() + options.minutes * 60))
        finally:
            for replica in replicas:
                if replica.process is not None:
                    replica.process.kill()
            redis.kill()
    found |= {
        "benchmark": "soak",
        "minutes": options.minutes,
        "asked": record.asked,
        "failed": record.failed,
        "refused": record.refused,
        "rss_mb": {name: flat(samples) for name, samples in record.rss_mb.items()},
        "descriptors": {name: flat(samples) for name, samples in record.descriptors.items()},
        "log": {replica.name: dict(replica.events.most_common(12)) for replica in replicas},
    }
    for key, value in found.items():
        print(f"{key:12} {value}")
    print(json.dumps(found))
    return 1 if record.failures else 0


if __name__ == "__main__":
    sys.exit(main())
