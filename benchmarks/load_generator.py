"""Question: how many requests per second does a running service answer, and with which latency, under closed-loop load?

Method: each client has one connection and sends the requests of a file repeatedly, each as soon as the previous one is
answered; after a rejection it waits as long as Retry-After says. Runs for a given time and records every latency.
Output: statuses, rate, median and p95 of answered requests; the last line is JSON. Uses only Python's standard library,
because it also runs in the service's image (docker compose --profile load up load).

    python benchmarks/load_generator.py --url http://127.0.0.1:8000 --requests demo/bundle-requests.jsonl --seconds 30
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PATHS = {"sequential": "/recommend/sequential", "direct": "/recommend/direct", "explanation": "/explain"}
PATIENCE_S = 60.0
BUSY = (429, 503)


@dataclass(frozen=True)
class Prepared:
    """A request ready to send."""

    path: str
    body: bytes


@dataclass
class Findings:
    """Results of all clients."""

    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: str, latency_s: float) -> None:
        with self.lock:
            self.statuses[status] += 1
            if status == "200":
                self.latencies_s.append(latency_s)


def read_requests(path: Path) -> list[Prepared]:
    """Requests in the format of `vip5 predict`, one per line."""
    bodies = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Prepared(PATHS[body.pop("task")], json.dumps(body).encode()) for body in bodies]


def ask(url: str, requests: Sequence[Prepared], first: int, until: float, findings: Findings) -> None:
    """One client; sends requests until the time is up."""
    host = urlsplit(url).netloc
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("LOAD_API_KEY"):
        headers["X-API-Key"] = key
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
    for request in itertools.islice(itertools.cycle(requests), first, None):
        started_at = time.monotonic()
        if started_at >= until:
            break
        try:
            connection.request("POST", request.path, request.body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            findings.note(type(error).__name__, 0.0)
            connection.close()
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
            continue
        findings.note(str(response.status), time.monotonic() - started_at)
        if response.status in BUSY:
            time.sleep(min(float(response.headers.get("Retry-After", 1)), max(0.0, until - time.monotonic())))
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=Path, default=Path("demo/bundle-requests.jsonl"))
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    requests = read_requests(options.requests)
    findings = Findings()
    started_at = time.monotonic()
    until = started_at + options.seconds
    step = max(1, len(requests) // options.clients)
    clients = [
        threading.Thread(target=ask, args=(options.url, requests, place * step, until, findings))
        for place in range(options.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(json.dumps(summary(findings, time.monotonic() - started_at)))


def summary(findings: Findings, elapsed_s: float) -> dict[str, object]:
    latencies_ms = sorted(each * 1000 for each in findings.latencies_s)
    return {
        "statuses": dict(findings.statuses),
        "answers_per_s": round(len(latencies_ms) / elapsed_s, 2),
        "median_ms": round(statistics.median(latencies_ms), 2) if latencies_ms else None,
        "p95_ms": round(latencies_ms[int(0.95 * (len(latencies_ms) - 1))], 2) if latencies_ms else None,
    }


if __name__ == "__main__":
    main()
