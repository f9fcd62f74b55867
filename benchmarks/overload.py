"""How does the service behave under five times its capacity?

Question  Do admitted requests meet their deadlines, how many are rejected, does memory grow, and how fast does the
          service recover when the load stops?
Method    `vip5 serve` in its own process, with random weights of T5-small's dimensions, so that the engine is the
          bottleneck. First its capacity is measured, with closed-loop clients. Then clients arrive at random at
          --factor times that rate; a rejected client waits as long as Retry-After says and retries, at most three
          attempts in all. Then the load stops, and single requests show when latencies are back to normal.
Output    Shares and percentiles of the attempts' outcomes, resident memory, and seconds to recovery; the last line is
          JSON.

    python -m benchmarks.overload [--seconds 20] [--factor 5] [--deadline-ms 3000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.e2e.processes import Server, serving
from tests.tiny import TINY_BACKBONE, tiny_bundle

BACKBONE = replace(TINY_BACKBONE, d_model=512, d_kv=64, d_ff=2048, num_heads=8, num_layers=6, num_decoder_layers=6)
NUM_CLIENTS = 24
MOST_ATTEMPTS = 3
NUM_UNLOADED = 30


@dataclass(frozen=True)
class Options:
    """Intensity and duration of the load."""

    seconds: float
    factor: float
    deadline_ms: int


@dataclass(frozen=True)
class Response:
    """The outcome of one attempt."""

    status: int
    retry_after_s: float
    latency_s: float


@dataclass
class Crowd:
    """All clients and their attempts."""

    server: Server
    deadline_ms: int
    responses: list[Response] = field(default_factory=list)

    async def ask(self, deadline_ms: int | None = None) -> Response:
        number = random.randrange(1, 116)
        body: dict[str, Any] = {
            "domain": "toys",
            "history": [f"item-{place}" for place in range(number, number + 5)],
            "deadline_ms": deadline_ms or self.deadline_ms,
        }
        started = time.perf_counter()
        status, headers = await post(self.server.url, "/recommend/sequential", body)
        retry_after_s = float(headers.get("retry-after", 0))
        return Response(status, retry_after_s, time.perf_counter() - started)

    async def come(self) -> None:
        """One client; retries when rejected."""
        for _ in range(MOST_ATTEMPTS):
            response = await self.ask()
            self.responses.append(response)
            if response.status != 429:
                return
            await asyncio.sleep(response.retry_after_s)


async def post(url: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str]]:
    """Send one request on its own connection; returns status and headers after reading the body."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    answer = await reader.read()
    writer.close()
    status_line, *lines = answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    return int(status_line.split()[1]), dict(line.split(": ", 1) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the service under overload.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--factor", type=float, default=5.0)
    parser.add_argument("--deadline-ms", type=int, default=3000)
    options = Options(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder), backbone=BACKBONE)
        with serving(bundle) as server:
            found = asyncio.run(measure(server, options))
    for name, figure in found.items():
        print(f"{name:28} {figure}")
    print(json.dumps({"benchmark": "overload", **vars(options), **found}))
    return 0


async def measure(server: Server, options: Options) -> dict[str, float]:
    crowd = Crowd(server, options.deadline_ms)
    unloaded = [(await crowd.ask()).latency_s for _ in range(NUM_UNLOADED)]
    capacity = await measure_capacity(crowd, options.seconds / 3)
    memory_before = resident_mib(server)
    memory_max = await overload(crowd, capacity * options.factor, options.seconds)
    stopped_at = time.perf_counter()
    recovered_s = await until_as_before(crowd, float(np.percentile(unloaded, 95)), stopped_at)
    statuses = Counter(response.status for response in crowd.responses)
    admitted = [response.latency_s for response in crowd.responses if response.status != 429]
    refused = [response.latency_s for response in crowd.responses if response.status == 429]
    return {
        "unloaded_p50_ms": in_ms(unloaded, 50),
        "capacity_per_s": round(capacity, 1),
        "attempts_per_s": round(len(crowd.responses) / options.seconds, 1),
        "answered_per_s": round(statuses[200] / options.seconds, 1),
        "share_429": round(statuses[429] / len(crowd.responses), 3),
        "share_504_of_admitted": round(statuses[504] / max(1, len(admitted)), 4),
        "other_statuses": len(crowd.responses) - statuses[200] - statuses[429] - statuses[504],
        "admitted_p50_ms": in_ms(admitted, 50),
        "admitted_p99_ms": in_ms(admitted, 99),
        "refused_p50_ms": in_ms(refused, 50),
        "memory_before_mib": memory_before,
        "memory_max_mib": memory_max,
        "memory_after_mib": resident_mib(server),
        "recovered_after_s": round(recovered_s, 2),
    }


async def measure_capacity(crowd: Crowd, seconds: float) -> float:
    """Answers per second with closed-loop clients, after a warm-up of a third of the time."""
    ends_at, counted_from, num_answers = time.perf_counter() + seconds, time.perf_counter() + seconds / 3, 0

    async def client() -> None:
        nonlocal num_answers
        while time.perf_counter() < ends_at:
            response = await crowd.ask(60_000)
            num_answers += response.status == 200 and time.perf_counter() > counted_from

    await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
    return num_answers / (time.perf_counter() - counted_from)


async def overload(crowd: Crowd, rate: float, seconds: float) -> float:
    """Let clients arrive at this rate per second; peak memory in MiB. Cancels pending clients at the end."""
    ends_at, next_at, memory = time.perf_counter() + seconds, time.perf_counter(), 0.0
    clients: set[asyncio.Task[None]] = set()
    while (now := time.perf_counter()) < ends_at:
        while next_at <= now:
            clients.add(asyncio.create_task(crowd.come()))
            next_at += random.expovariate(rate)
        await asyncio.sleep(0.005)
        if len(clients) % 50 == 0:
            memory = max(memory, resident_mib(crowd.server))
    for client in clients:
        client.cancel()
    for outcome in await asyncio.gather(*clients, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return max(memory, resident_mib(crowd.server))


async def until_as_before(crowd: Crowd, usual_s: float, since: float) -> float:
    """Seconds until the first of five consecutive answers within twice the usual latency."""
    row: list[float] = []
    while len(row) < 5:
        asked_at = time.perf_counter()
        response = await crowd.ask()
        is_usual = response.status == 200 and response.latency_s <= 2 * usual_s
        row = [*row, asked_at] if is_usual else []
    return row[0] - since


def resident_mib(server: Server) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS")]
    return round(int(line.split()[1]) / 1024, 1)


def in_ms(seconds: list[float], share: float) -> float:
    return round(float(np.percentile(seconds, share)) * 1000, 1) if seconds else 0.0


if __name__ == "__main__":
    sys.exit(main())
