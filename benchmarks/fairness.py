"""Does one API key's burst starve another key?

Question  One key sends a steady load. Another sends 20 times as much at once. How much longer does the first key wait?
Method    `vip5 serve` in its own process on a model with random weights, with a file of two keys. Capacity is measured
          with 16 clients of one key in a closed loop. Requests of the first key then arrive at --share of the capacity,
          at random (Poisson), in alternating phases: alone, and beside 20 times as many of the second key, which
          another process sends. Both phases of a pair have the same times. Each request has its own connection, and is
          given up after --patience seconds. A run takes 10 s, and --phases times twice --seconds, each with up to
          --patience for the last answers: 140 s on an idle machine with the defaults. Clients, event loop and engine
          need processors of their own: with fewer than four, or beside other work, what the burst costs the clients
          delays the engine too.
Output    p50 and p99 of the first key alone and beside the burst, and their ratios; what both keys were answered; the
          processor time of the burst's clients and of the event loop per second of burst. The last line is JSON.

    python -m benchmarks.fairness [--share 0.3] [--seconds 20] [--phases 3] [--patience 10]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.commit import commit
from benchmarks.overload import BACKBONE
from benchmarks.refusals import loop_us
from service.http.api_keys import new_key
from tests.e2e.processes import Server, serving
from tests.tiny import tiny_bundle

FACTOR = 20
NUM_CLIENTS = 16
CAPACITY_S = 8.0


class Key:
    """A key, and what its requests got."""

    def __init__(self, url: str, key: str, patience_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._key = key
        self._patience_s = patience_s
        self.statuses: Counter[int | str] = Counter()
        self.durations_ms: list[float] = []

    async def ask(self) -> None:
        """One request on its own connection."""
        first = random.randrange(1, 100)
        body = json.dumps({"domain": "toys", "history": [f"item-{first + place}" for place in range(5)]}).encode()
        head = (
            f"POST /recommend/sequential HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        started_at = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience_s):
                status = await self._status(head + body)
        except (TimeoutError, OSError) as error:
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[status] += 1
        if status == 200:
            self.durations_ms.append((time.perf_counter() - started_at) * 1000)

    async def _status(self, request: bytes) -> int:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            answer = await reader.read()
        finally:
            writer.close()
        if not answer:
            raise ConnectionResetError("closed without an answer")
        return int(answer.split(b" ", 2)[1])

    async def arrive(self, rate: float, until: float, seed: int) -> None:
        """Requests at random times; waits for the last."""
        chance = random.Random(seed)
        async with asyncio.TaskGroup() as running:
            while (now := time.perf_counter()) < until:
                running.create_task(self.ask())
                await asyncio.sleep(max(0.0, chance.expovariate(rate) - (time.perf_counter() - now)))

    async def burst(self, number: int, until: float) -> None:
        """So many clients in a closed loop."""

        async def client() -> None:
            while time.perf_counter() < until:
                await self.ask()

        await asyncio.gather(*(client() for _ in range(number)))


async def measure(server: Server, steady: str, bursting: str, options: argparse.Namespace) -> dict[str, Any]:
    warming = Key(server.url, bursting, options.patience)
    await warming.burst(NUM_CLIENTS, time.perf_counter() + CAPACITY_S / 4)
    warming.durations_ms.clear()
    await warming.burst(NUM_CLIENTS, time.perf_counter() + CAPACITY_S)
    capacity = len(warming.durations_ms) / CAPACITY_S
    rate = options.share * capacity
    alone, beside = (Key(server.url, steady, options.patience) for _ in range(2))
    burst: Counter[int | str] = Counter()
    clients_s = loop_s = 0.0
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        await asyncio.to_thread(pool.submit(int).result)  # the process has started
        for phase in range(options.phases):
            await alone.arrive(rate, time.perf_counter() + options.seconds, phase)
            other = pool.submit(burst_of, server.url, bursting, FACTOR * rate, options)
            before = loop_us(server)
            await beside.arrive(rate, time.perf_counter() + options.seconds, phase)
            statuses, spent_s = await asyncio.to_thread(other.result)
            burst, clients_s, loop_s = burst + statuses, clients_s + spent_s, loop_s + (loop_us(server) - before) / 1e6
            print(
                f"phase {phase}: {dict(alone.statuses)} alone, {dict(beside.statuses)} beside {dict(burst)}", flush=True
            )
    found = {
        "capacity_rps": round(capacity, 1),
        "rate_rps": round(rate, 1),
        "alone_ms": percentiles(alone.durations_ms),
        "beside_ms": percentiles(beside.durations_ms),
        "burst_clients_cpu": round(clients_s / (options.phases * options.seconds), 2),
        "event_loop_cpu": round(loop_s / (options.phases * options.seconds), 2),
        "statuses": {"alone": alone.statuses, "beside": beside.statuses, "burst": burst},
    }
    pairs = zip(found["beside_ms"], found["alone_ms"], strict=True)
    return found | {"ratios": [round(each / base, 2) for each, base in pairs]}


def burst_of(url: str, key: str, rate: float, options: argparse.Namespace) -> tuple[Counter[int | str], float]:
    """What a burst of another process was answered, and the seconds of processor time that its clients took."""

    async def run() -> tuple[Counter[int | str], float]:
        other, before = Key(url, key, options.patience), time.process_time()
        await other.arrive(rate, time.perf_counter() + options.seconds, seed=-1)
        return other.statuses, time.process_time() - before

    return asyncio.run(run())


def percentiles(durations_ms: list[float]) -> list[float]:
    """p50 and p99."""
    return [round(float(each), 1) for each in np.percentile(durations_ms, [50, 99])]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure whether one key's burst delays another.")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--patience", type=float, default=10.0)
    options = parser.parse_args()
    steady, bursting = new_key("steady"), new_key("bursting")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys.jsonl"
        file.write_text("\n".join(itertools.chain((steady.line, bursting.line), [""])))
        bundle = tiny_bundle(Path(folder), backbone=BACKBONE)
        with serving(bundle, {"VIP5_API_KEYS_FILE": str(file)}) as server:
            found = asyncio.run(measure(server, steady.key, bursting.key, options))
    for name, figure in found.items():
        print(f"{name:20} {figure}")
    print(json.dumps({"benchmark": "fairness", "commit": commit(), **vars(options), **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
