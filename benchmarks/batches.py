"""What do batches of requests give, and what do they cost requests that come alone?

Question  How many requests per second are answered in batches, and how many one by one with as many in flight? How long
          does a single request take alone, and beside a client that sends batches of 256 without a pause?
Method    `vip5 serve` in its own process, one thread for the model, the sequential requests of --requests over kept
          connections. Rates: for each number in flight, phases take turns in which that many clients send single
          requests, or two clients send batches of half that size, each as soon as the last is answered. Latencies:
          single requests come at random, at --share of the rate of one client, in phases that take turns: alone and
          beside.
Output    Requests per second of both and their ratio; p50 and p99 alone and beside and their ratios. The last line is
          JSON.

    python -m benchmarks.batches [--bundle demo/bundle] [--seconds 8] [--phases 3] [--share 0.3] [--workers 0]
                                 [--toys]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.commit import commit
from benchmarks.cpu_engine import BUNDLE, DATA
from benchmarks.toys_bundle import build, write_requests
from service.batching.bulk import COMPANY_S
from tests.e2e.processes import ROOT, serving

SINGLE, BATCH = "/recommend/sequential", "/recommend/sequential:batch"
IN_FLIGHT = (16, 64)
LARGEST = 256
NUM_USERS = 1_000
DEADLINE_MS = 600_000
QUIET_S = COMPANY_S + 0.2
"""Pause before a phase, after which the engine's calls for batches are as long as without single requests."""


class Connection:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, url: str) -> Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24))

    async def post(self, path: str, body: bytes) -> bytes:
        """The answer's content; any status but 200 is an error."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise RuntimeError(f"{answer.decode()}{content[:500].decode()}")
        return content

    def close(self) -> None:
        self._writer.close()


def bodies_of(path: Path) -> list[bytes]:
    """The sequential requests of a file for `vip5 predict`, with a deadline that is long enough for any phase."""
    bodies = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        json.dumps(body | {"deadline_ms": DEADLINE_MS}).encode() for body in bodies if body.pop("task") == "sequential"
    ]


def batch_of(bodies: Iterator[bytes], size: int) -> bytes:
    return b'{"requests":[' + b",".join(itertools.islice(bodies, size)) + b"]}"


async def send_singles(url: str, bodies: Iterator[bytes], number: int, until: float) -> int:
    """So many clients in a closed loop; the number of answers."""

    async def client() -> int:
        connection, answered = await Connection.to(url), 0
        while time.perf_counter() < until:
            await connection.post(SINGLE, next(bodies))
            answered += 1
        connection.close()
        return answered

    return sum(await asyncio.gather(*(client() for _ in range(number))))


async def send_batches(url: str, bodies: Iterator[bytes], size: int, until: float) -> int:
    """One client that sends batches in a closed loop; the number of answers."""
    connection, answered = await Connection.to(url), 0
    while time.perf_counter() < until:
        content = await connection.post(BATCH, batch_of(bodies, size))
        if b'"status":' in content:
            raise RuntimeError("a request of a batch was not answered")
        answered += size
    connection.close()
    return answered


async def send_two(url: str, bodies: Iterator[bytes], number: int, until: float) -> int:
    """Two such clients, with so many requests in flight."""
    return sum(await asyncio.gather(*(send_batches(url, bodies, number // 2, until) for _ in range(2))))


async def arrive(url: str, bodies: Iterator[bytes], rate: float, until: float) -> list[float]:
    """Single requests at random times; their durations in milliseconds."""
    idle: list[Connection] = []
    durations_ms: list[float] = []

    async def ask() -> None:
        connection = idle.pop() if idle else await Connection.to(url)
        started_at = time.perf_counter()
        await connection.post(SINGLE, next(bodies))
        durations_ms.append((time.perf_counter() - started_at) * 1000)
        idle.append(connection)

    async with asyncio.TaskGroup() as running:
        while (now := time.perf_counter()) < until:
            running.create_task(ask())
            await asyncio.sleep(max(0.0, random.expovariate(rate) - (time.perf_counter() - now)))
    for connection in idle:
        connection.close()
    return durations_ms


async def rates(url: str, bodies: Iterator[bytes], options: argparse.Namespace) -> list[dict[str, float]]:
    rows = []
    for number in IN_FLIGHT:
        sums = {"singles": [0.0, 0.0], "batches": [0.0, 0.0]}
        for _ in range(options.phases):
            for kind, send in (("singles", send_singles), ("batches", send_two)):
                await asyncio.sleep(QUIET_S)
                started_at = time.perf_counter()
                sums[kind][0] += await send(url, bodies, number, started_at + options.seconds)
                sums[kind][1] += time.perf_counter() - started_at
        found = {kind: round(answered / took_s, 1) for kind, (answered, took_s) in sums.items()}
        rows.append({"in_flight": number, **found, "ratio": round(found["batches"] / found["singles"], 2)})
    return rows


async def latencies(url: str, bodies: Iterator[bytes], options: argparse.Namespace) -> dict[str, Any]:
    rate = options.share * await send_singles(url, bodies, 1, time.perf_counter() + options.seconds) / options.seconds
    alone: list[float] = []
    beside: list[float] = []
    in_batches = 0
    for _ in range(options.phases):
        alone += await arrive(url, bodies, rate, time.perf_counter() + options.seconds)
        until = time.perf_counter() + options.seconds
        sending = asyncio.create_task(send_batches(url, bodies, LARGEST, until))
        beside += await arrive(url, bodies, rate, until)
        in_batches += await sending
    found = {"rate_rps": round(rate, 1), "alone_ms": percentiles(alone), "beside_ms": percentiles(beside)}
    pairs = zip(found["beside_ms"], found["alone_ms"], strict=True)
    return found | {
        "ratios": [round(each / base, 2) for each, base in pairs],
        "num_alone": len(alone),
        "num_beside": len(beside),
        "batched_rps": round(in_batches / (options.phases * options.seconds), 1),
    }


def percentiles(durations_ms: list[float]) -> list[float]:
    """p50 and p99."""
    return [round(float(each), 1) for each in np.percentile(durations_ms, [50, 99])]


async def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    bodies = itertools.cycle(bodies_of(options.requests))
    await send_singles(url, bodies, 16, time.perf_counter() + options.seconds / 2)
    await send_batches(url, bodies, 64, time.perf_counter() + options.seconds / 2)
    return {"rates": await rates(url, bodies, options), **await latencies(url, bodies, options)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure batches of requests beside single ones.")
    parser.add_argument("--bundle", type=Path, default=ROOT / "demo" / "bundle")
    parser.add_argument("--requests", type=Path, default=ROOT / "demo" / "bundle-requests.jsonl")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--toys", action="store_true", help="T5-small's size and ../shared/data in place of --bundle")
    options = parser.parse_args()
    if options.toys:
        options.bundle, options.requests = BUNDLE, BUNDLE.with_name("toys-requests.jsonl")
        if not BUNDLE.exists():
            build(BUNDLE, DATA)
        write_requests(options.requests, DATA, NUM_USERS)
    with serving(options.bundle, {"VIP5_WORKERS": str(options.workers)}) as server:
        found = asyncio.run(measure(server.url, options))
    for row in found["rates"]:
        print(*(f"{name} {figure:>8}" for name, figure in row.items()), sep="   ")
    for name, figure in found.items():
        if name != "rates":
            print(f"{name:20} {figure}")
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    print(json.dumps({"benchmark": "batches", "commit": commit(), **given, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
