"""How much of a processor does the service need for one recommendation, the engine apart?

Question  CPU time per `POST /recommend/sequential` and answers per second, with an engine that answers at once. What do
          ASGI and FastAPI cost alone? How does another checkout do in the same run?
Method    Each subject is a process of its own, under 16 keep-alive connections that each send the next request when the
          last is answered; the load comes from this process. Subjects take turns. CPU times are the kernel's, by
          thread: the event loop's, and all others' (lane, log). `split` is the service with two workers: `workers` is
          the CPU time of both for a request, `loop` and `others` that of the engine process. `asgi` answers with
          prepared bytes, `fastapi` validates the same body and answer models. The catalog is that of Toys if DATA has
          it, otherwise made up in its size.
Output    Medians over rounds of CPU microseconds per request, answers per second and latencies, and the least CPU time
          of a round; ratios to the baseline are medians over rounds. The last line is JSON.

    python -m benchmarks.hot_path [--baseline CHECKOUT] [--split-baseline CHECKOUT] [--requests 1000] [--rounds 12]
            [--connections 16] [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import hot_path_servers
from benchmarks.hot_path_servers import KINDS, requests_of, write_bundle
from tests.redis_servers import free_port

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120
WARM_UP = 100


@dataclass(frozen=True)
class Subject:
    """A server to measure."""

    name: str
    kind: str
    root: Path


@dataclass
class Server:
    """A running subject, and what was measured of it in each round."""

    subject: Subject
    process: subprocess.Popen[bytes]
    port: int
    rounds: list[dict[str, float]] = field(default_factory=list)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, of the event loop's thread and of all others."""
        times = {"loop": 0.0, "others": 0.0, "workers": 0.0}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            name = "loop" if int(task.name) == self.process.pid else "others"
            times[name] += _cpu_s(task)
            for child in (task / "children").read_text().split():
                times["workers"] += sum(_cpu_s(each) for each in Path(f"/proc/{child}/task").iterdir())
        return times


def _cpu_s(task: Path) -> float:
    return int((task / "schedstat").read_text().split()[0]) / 1e9


class Client(asyncio.Protocol):
    """One connection that sends a request as soon as the last is answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._load.fail(head + body)
            return
        self._load.latencies_s.append(time.perf_counter() - self._sent_at)
        self._send()

    def _send(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]  # a stream's

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.note_end(exc)


class Load:
    """A number of requests to send over several connections."""

    def __init__(self, requests: list[bytes], total: int, num_connections: int) -> None:
        self._requests, self._left = requests, total
        self._num_open = self._num_connections = num_connections
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_s: list[float] = []

    def next_request(self) -> bytes | None:
        if not self._left:
            return None
        self._left -= 1
        return self._requests[self._left % len(self._requests)]

    def fail(self, answer: bytes) -> None:
        if not self._ended.done():
            self._ended.set_exception(RuntimeError(f"not a recommendation: {answer[:2000]!r}"))

    def note_end(self, error: Exception | None) -> None:
        self._num_open -= 1
        if not self._ended.done() and (error is not None or not self._num_open):
            self._ended.set_result(None)

    async def run(self, port: int) -> float:
        """Seconds that it took."""
        started_at = time.perf_counter()
        for _ in range(self._num_connections):
            await asyncio.get_running_loop().create_connection(lambda: Client(self), "127.0.0.1", port)
        await asyncio.wait_for(self._ended, PATIENCE_S)
        return time.perf_counter() - started_at


async def send(requests: list[bytes], total: int, port: int, num_connections: int) -> tuple[float, list[float]]:
    load = Load(requests, total, num_connections)
    return await load.run(port), load.latencies_s


def measure(server: Server, requests: list[bytes], total: int, num_connections: int) -> dict[str, float]:
    import uvloop  # noqa: PLC0415  # servers with an older checkout need nothing of this

    uvloop.run(send(requests, WARM_UP, server.port, num_connections))
    before = server.cpu_s()
    seconds, latencies_s = uvloop.run(send(requests, total, server.port, num_connections))
    after = server.cpu_s()
    cpu_us = {name: (after[name] - before[name]) / total * 1e6 for name in before}
    ordered_ms = sorted(each * 1000 for each in latencies_s)
    return {
        "cpu_us": sum(cpu_us.values()),
        "loop_us": cpu_us["loop"],
        "others_us": cpu_us["others"],
        "workers_us": cpu_us["workers"],
        "per_s": total / seconds,
        "p50_ms": ordered_ms[len(ordered_ms) // 2],
        "p99_ms": ordered_ms[int(len(ordered_ms) * 0.99)],
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians, and the least CPU time of a round, which other work on the machine inflates the least."""
    medians = {name: round(statistics.median(each[name] for each in rounds), 2) for name in rounds[0]}
    return {"least_us": round(min(each["cpu_us"] for each in rounds), 2), **medians}


def ratios(rounds: list[dict[str, float]], baseline: list[dict[str, float]]) -> dict[str, float]:
    """Medians over rounds of each figure relative to the baseline's in the same round."""
    pairs = list(zip(rounds, baseline, strict=True))
    return {
        name: round(statistics.median(one[name] / other[name] for one, other in pairs), 3)
        for name in rounds[0]
        if all(other[name] for other in baseline)
    }


# Servers, each in a process of its own


@contextmanager
def running(subject: Subject, bundle: Path) -> Iterator[Server]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIP5_")}
    environment |= {"PYTHONPATH": str(subject.root), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        hot_path_servers.__file__,
        "--serve",
        subject.kind,
        "--bundle",
        str(bundle),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, env=environment, cwd=subject.root, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        _wait_ready(process, port, "/health/ready" if subject.kind in {"service", "split"} else None)
        yield Server(subject, process, port)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_ready(process: subprocess.Popen[bytes], port: int, path: str | None) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1.0) as one:
                if path is None:
                    return
                one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                if b" 200 " in one.recv(4096)[:16]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server does not answer at port {port}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="another checkout of this repository, with one process")
    parser.add_argument("--split-baseline", type=Path, help="another checkout, with workers")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", default="", help="names of subjects, separated by commas (default: all)")
    options = parser.parse_args()
    subjects = [Subject(kind, kind, ROOT) for kind in KINDS]
    if options.baseline:
        subjects.append(Subject("baseline", "service", options.baseline.resolve()))
    if options.split_baseline:
        subjects.append(Subject("split_baseline", "split", options.split_baseline.resolve()))
    names = set(options.only.split(",")) - {""}
    subjects = [each for each in subjects if not names or each.name in names]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bundle = Path(folder) / "bundle"
        requests = requests_of(write_bundle(bundle, options.data))
        servers = [stack.enter_context(running(each, bundle)) for each in subjects]
        for _ in range(options.rounds):
            for server in servers:
                server.rounds.append(measure(server, requests, options.requests, options.connections))
    found: dict[str, dict[str, float]] = {server.subject.name: summary(server.rounds) for server in servers}
    rounds = {server.subject.name: server.rounds for server in servers}
    for name, base in (("service", "baseline"), ("split", "baseline"), ("split", "split_baseline")):
        if {name, base} <= rounds.keys():
            found[f"{name} / {base}"] = ratios(rounds[name], rounds[base])
    for name, figures in found.items():
        print(f"{name:10}", *(f"{key} {value:9.2f}" for key, value in figures.items()))
    print(json.dumps({"benchmark": "hot_path", "requests": options.requests, "rounds": options.rounds, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
