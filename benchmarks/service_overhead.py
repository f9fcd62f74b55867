"""What does the service add to the engine?

Question  At concurrency 1: how much time is added to the engine's? At saturation: what share of the engine's throughput
          remains, and does the event loop stay responsive? How do concurrent explanation streams affect
          recommendations?
Method    `vip5 serve` in its own process on a tiny model with random weights, with clients on plain sockets, which cost
          less than an HTTP library. Added time is the request's duration minus the encoder and decoder times in its
          answer. The engine alone runs in this process, interleaved with the service, on the same plans in batches as
          large as the number of clients. The event loop is probed with /health/live.
Output    Medians and 99th percentiles, rates, and their ratios; the last line is JSON.

    python -m benchmarks.service_overhead [--requests 400] [--seconds 4] [--rounds 3] [--clients 32]
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from model.engine.offline import rank
from model.engine.plans import RankingPlan
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import Runtime, load_runtime
from tests.e2e.processes import Server, serving
from tests.tiny import tiny_bundle

NUM_STREAMS = 4


@dataclass(frozen=True)
class Options:
    """Duration and load of the measurements."""

    requests: int
    seconds: float
    rounds: int
    clients: int


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the service adds to the engine.")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    options = Options(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder))
        runtime = load_runtime(bundle, num_threads=1)
        with serving(bundle, {}) as server:
            found = {
                "alone": measure_alone(server, runtime, options),
                "saturated": measure_saturated(server, runtime, options),
                "streams": measure_beside_streams(server, options),
            }
    for name, figures in found.items():
        print(name, figures)
    print(json.dumps({"benchmark": "service_overhead", **vars(options), **found}))
    return 0


class Connection:
    """One keep-alive connection with a minimal HTTP client."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return self._answer()

    def get(self, path: str) -> bytes:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return self._answer()

    def _answer(self) -> bytes:
        status = self._file.readline()
        length, is_chunked = 0, False
        while (line := self._file.readline().lower()) != b"\r\n":
            length = int(line[15:]) if line.startswith(b"content-length:") else length
            is_chunked = is_chunked or line.startswith(b"transfer-encoding: chunked")
        content = b"".join(self._chunks()) if is_chunked else self._file.read(length)
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r}: {content!r}")
        return content

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()


def body_of(number: int) -> dict[str, Any]:
    history = [f"item-{place % 120 + 1}" for place in range(number, number + 5)]
    return {"domain": "toys", "history": history, "user_id": "u1", "k": 10, "timings": True}


def plan_of(runtime: Runtime, number: int) -> RankingPlan:
    domain = runtime.domains["toys"]
    query = OfflineSequential(history=tuple(body_of(number)["history"]), user_id="u1", k=10)
    plan = plan_sequential(domain, query)
    assert isinstance(plan, RankingPlan)
    return replace(plan, features=(np.zeros((len(plan.prompt.image_items), 8), dtype=np.float32),))


def measure_alone(server: Server, runtime: Runtime, options: Options) -> dict[str, float]:
    """Requests in sequence, interleaved with calls of the engine in this process."""
    connection = Connection(server.url)
    took, added, queued, engine = [], [], [], []
    for number in range(options.requests + 50):
        started = time.perf_counter()
        answer = connection.post("/recommend/sequential", body_of(number))
        http_ms = (time.perf_counter() - started) * 1000
        timings = json.loads(answer)["timings_ms"]
        work = plan_of(runtime, number)
        started = time.perf_counter()
        rank(runtime.engine, [work])
        engine_ms = (time.perf_counter() - started) * 1000
        if number >= 50:
            took.append(http_ms)
            added.append(http_ms - timings["encode"] - timings["decode"])
            queued.append(timings["queue"])
            engine.append(engine_ms)
    return {
        "http_p50_ms": percentile(took, 50),
        "engine_here_p50_ms": percentile(engine, 50),
        "added_p50_ms": percentile(added, 50),
        "added_p95_ms": percentile(added, 95),
        "of_it_queue_p50_ms": percentile(queued, 50),
    }


def measure_saturated(server: Server, runtime: Runtime, options: Options) -> dict[str, float]:
    """Rounds of closed-loop clients, and of the engine alone."""
    service_rates, engine_rates = [], []
    live_ms: list[float] = []
    plans = [plan_of(runtime, number) for number in range(options.clients)]
    for _ in range(options.rounds):
        with probing(server, live_ms):
            counts = in_threads(options.clients, lambda number: ask_on(server, number, options.seconds))
        service_rates.append(sum(counts) / options.seconds)
        ends_at, num_ranked = time.perf_counter() + options.seconds, 0
        while time.perf_counter() < ends_at:
            rank(runtime.engine, plans)
            num_ranked += len(plans)
        engine_rates.append(num_ranked / options.seconds)
    return {
        "service_per_s": round(float(np.median(service_rates)), 1),
        "engine_per_s": round(float(np.median(engine_rates)), 1),
        "ratio": round(float(np.median(service_rates) / np.median(engine_rates)), 3),
        "live_p50_ms": percentile(live_ms, 50),
        "live_p99_ms": percentile(live_ms, 99),
        "live_max_ms": round(max(live_ms), 2),
    }


def measure_beside_streams(server: Server, options: Options) -> dict[str, float]:
    """Recommendations in sequence, in rounds without and with concurrent explanation streams."""
    without: list[float] = []
    beside: list[float] = []
    for _ in range(options.rounds):
        without += latencies(server, options.seconds)
        is_over = threading.Event()
        with ThreadPoolExecutor(NUM_STREAMS) as pool:
            for number in range(NUM_STREAMS):
                pool.submit(stream_on, server, number, is_over)
            beside += latencies(server, options.seconds)
            is_over.set()
    return {
        "without_p50_ms": percentile(without, 50),
        "without_p99_ms": percentile(without, 99),
        "beside_p50_ms": percentile(beside, 50),
        "beside_p99_ms": percentile(beside, 99),
    }


def ask_on(server: Server, number: int, seconds: float) -> int:
    """Send requests in a closed loop; returns the number of answers in time."""
    connection = Connection(server.url)
    ends_at, num_answers = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends_at:
        connection.post("/recommend/sequential", body_of(number))
        num_answers += 1
    return num_answers


def latencies(server: Server, seconds: float) -> list[float]:
    connection = Connection(server.url)
    found: list[float] = []
    ends_at = time.perf_counter() + seconds
    while (started := time.perf_counter()) < ends_at:
        connection.post("/recommend/sequential", body_of(len(found)))
        found.append((time.perf_counter() - started) * 1000)
    return found


def stream_on(server: Server, number: int, is_over: threading.Event) -> None:
    connection = Connection(server.url)
    while not is_over.is_set():
        seed = number = number + NUM_STREAMS
        body = {"domain": "toys", "item_id": "item-5", "user_id": "u1", "stream": True, "max_new_tokens": 64}
        connection.post("/explain", body | {"temperature": 2.0, "seed": seed})


@contextmanager
def probing(server: Server, found_ms: list[float]) -> Iterator[None]:
    """Probe /health/live every 5 ms during the block."""
    is_over = threading.Event()

    def probe() -> None:
        connection = Connection(server.url)
        while not is_over.wait(0.005):
            started = time.perf_counter()
            connection.get("/health/live")
            found_ms.append((time.perf_counter() - started) * 1000)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def in_threads(number: int, call: Callable[[int], int]) -> list[int]:
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(call, range(number)))


def percentile(values: list[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 3)


if __name__ == "__main__":
    sys.exit(main())
