"""What does it cost to refuse a request?

Question  An offered load of many times the capacity must not keep the event loop from those who are admitted. How much
          of the loop's time does each refusal take?
Method    `vip5 serve` in its own process, with random weights of T5-small's dimensions and a lane that one key keeps
          busy. The same key sends requests whose deadline is too short, one after the other, on one connection and on
          a connection each; then with a rate limit, with no key, and probes of liveness for comparison. The processor
          time of the thread of the event loop is read from /proc before and after, and divided by all that it answered.
Output    Microseconds of processor time per request in the median of --rounds, and what was answered; the last line is
          JSON. Linux only.

    python -m benchmarks.refusals [--requests 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.commit import commit
from benchmarks.overload import BACKBONE
from service.http.api_keys import new_key
from tests.e2e.processes import Server, serving
from tests.tiny import tiny_bundle

NUM_FILLING = 3
BODY = json.dumps(
    {"domain": "toys", "history": [f"item-{number}" for number in range(1, 21)], "deadline_ms": 20}
).encode()
LONG_BODY = json.dumps({"domain": "toys", "history": ["item-1"], "num_beams": 100}).encode()


@dataclass(frozen=True)
class Sender:
    """Sends one kind of request."""

    server: Server
    request: bytes

    def send(self, number: int, *, keeps: bool) -> Counter[int]:
        """The statuses of so many requests, on one connection or on one each."""
        statuses: Counter[int] = Counter()
        connection = self.connect() if keeps else None
        for _ in range(number):
            each = connection or self.connect()
            each.sendall(self.request)
            statuses[status_of(each)] += 1
            if connection is None:
                each.close()
        if connection is not None:
            connection.close()
        return statuses

    def connect(self) -> socket.socket:
        parts = urlsplit(self.server.url)
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def status_of(connection: socket.socket) -> int:
    """Read one answer."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(65_536)
    return int(head.split(b" ", 2)[1])


def request_of(path: str, key: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def busy_lane(server: Server, key: str) -> Iterator[Counter[int]]:
    """Requests wait, as long as the block runs; the statuses of those that were answered."""
    is_over = threading.Event()
    statuses: Counter[int] = Counter()

    def fill() -> None:
        sender = Sender(server, request_of("/recommend/sequential", key, LONG_BODY))
        while not is_over.is_set():
            statuses.update(sender.send(1, keeps=False))

    threads = [threading.Thread(target=fill) for _ in range(NUM_FILLING)]
    for each in threads:
        each.start()
    is_over.wait(2.0)
    yield statuses
    is_over.set()
    for each in threads:
        each.join()


def loop_us(server: Server) -> float:
    """Processor time of the main thread so far."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e3


def cost_us(
    sender: Sender, options: argparse.Namespace, others: Counter[int], *, keeps: bool
) -> tuple[float, Counter[int]]:
    statuses: Counter[int] = Counter()
    found = []
    for _ in range(options.rounds):
        before, num_others = loop_us(sender.server), others.total()
        statuses += sender.send(options.requests, keeps=keeps)
        num_answered = options.requests + others.total() - num_others
        found.append((loop_us(sender.server) - before) / num_answered)
    print(
        sender.request.split(b" ", 2)[1].decode(),
        keeps,
        round(statistics.median(found)),
        dict(statuses),
        file=sys.stderr,
    )
    return statistics.median(found), statuses


def measure(options: argparse.Namespace, limits: dict[str, str], key: str) -> dict[str, tuple[float, Counter[int]]]:
    """Costs by case."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder), backbone=BACKBONE)
        path = "/recommend/sequential"
        with serving(bundle, limits) as server, busy_lane(server, key) as others:
            refused = Sender(server, request_of(path, key, BODY))
            keyless = Sender(server, request_of(path, "wrong", BODY))
            probe = Sender(server, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            return {
                "refused": cost_us(refused, options, others, keeps=True),
                "refused, new connections": cost_us(refused, options, others, keeps=False),
                "wrong key": cost_us(keyless, options, others, keeps=True),
                "probe": cost_us(probe, options, others, keeps=True),
                "probe, new connections": cost_us(probe, options, others, keeps=False),
            }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the processor time of a refusal.")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    made = new_key("bursting")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys.jsonl"
        file.write_text(made.line)
        keys = {"VIP5_API_KEYS_FILE": str(file)}
        busy = measure(options, keys, made.key)
        limited = measure(options, keys | {"VIP5_RATE_LIMIT": "1/hour"}, made.key)
    costs = busy | {f"rate limit: {name}": limited[name] for name in ("refused", "refused, new connections")}
    for name, (microseconds, statuses) in costs.items():
        print(f"{name:40} {microseconds:7.0f} µs   {dict(statuses)}")
    figures = {name: round(microseconds) for name, (microseconds, _) in costs.items()}
    print(json.dumps({"benchmark": "refusals", "commit": commit(), **vars(options), "us": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
