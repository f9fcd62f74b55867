"""What is the most that one request can cost?

Question  The costliest body of each kind that the limits allow: how long does it occupy the engine, for how long does
          the event loop answer nobody, and how much memory does it take?
Method    `vip5 serve` in its own process, on the demonstration and on a tiny model with a million items. Each body is
          sent by itself. Engine: the growth of vip5_engine_busy_seconds. Loop: the longest answer of /health/live,
          which is asked every 2 ms meanwhile (and once before, as the baseline). Memory: the growth of the peak of
          resident memory, which is reset before each body. For machines that do other work, too: the processor time
          of the whole service for the body and the probes beside it, and the most while one probe waited, which is
          at least as long as the loop was kept from answering.
Output    A table by kind; the last line is JSON. Exit status 1 if one exceeds 1 s of engine, 100 ms of loop or 100 MB.

    python -m benchmarks.costliest_requests [--items 1000000] [--only 9,000]
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
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from benchmarks.commit import commit
from tests.e2e.processes import ROOT, Server, serving
from tests.tiny import tiny_bundle

PROBE_EVERY_S = 0.002
TIMEOUT_S = 120.0
MAX_ENGINE_S, MAX_LOOP_MS, MAX_MEMORY_MB = 1.0, 100.0, 100.0
MEGABYTE = 1 << 20
NUM_HELD = 300
NUM_EMOJI = 64
NUM_FEATURES = 48
"""Width of the demonstration's embeddings."""
TOKEN = "t" * 32

Send = Callable[[Server], int]
"""Sends a body; returns the status."""


@dataclass(frozen=True)
class Costs:
    """What one kind of request costs."""

    kind: str
    status: int
    seconds: float
    engine_s: float
    loop_ms: float
    cpu_s: float
    probe_cpu_ms: float
    memory_mb: float

    @property
    def is_too_much(self) -> bool:
        return self.engine_s > MAX_ENGINE_S or self.loop_ms > MAX_LOOP_MS or self.memory_mb > MAX_MEMORY_MB


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the costliest request of each kind.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="a part of the kinds' names")
    options = parser.parse_args()
    found: list[Costs] = []

    def measure(server: Server, kinds: dict[str, Send]) -> None:
        found.extend(measured(server, kind, send) for kind, send in kinds.items() if options.only in kind)

    with tempfile.TemporaryDirectory() as folder:
        with serving(ROOT / "demo" / "bundle") as server:
            measure(server, on_the_demonstration())
        with serving(ROOT / "demo" / "bundle", {"VIP5_RATE_LIMIT": "1/hour"}) as server:
            post(server, "/recommend/sequential", sequential(1))
            measure(server, {"1 MB after the rate limit": lambda each: post_large(each, MEGABYTE)})
        with serving(ROOT / "demo" / "bundle", administered(Path(folder))) as server:
            measure(server, of_administration())
        with serving(tiny_bundle(Path(folder), num_items=options.items)) as server:
            measure(server, on_a_large_catalog())
    print(
        f"{'kind':58} {'status':>6} {'s':>7} {'engine s':>8} {'loop ms':>8} {'cpu s':>6} {'probe cpu ms':>12} {'MB':>7}"
    )
    for each in found:
        mark = " <- too much" if each.is_too_much else ""
        print(
            f"{each.kind:58} {each.status:6} {each.seconds:7.2f} {each.engine_s:8.2f} {each.loop_ms:8.1f} "
            f"{each.cpu_s:6.2f} {each.probe_cpu_ms:12.1f} {each.memory_mb:7.1f}{mark}"
        )
    print(
        json.dumps({"benchmark": "costliest_requests", "commit": commit(), "kinds": [asdict(each) for each in found]})
    )
    return 1 if any(each.is_too_much for each in found) else 0


# Bodies


def toys(number: int, first: int = 0) -> list[str]:
    return [f"toy-{(first + place) % 216 + 1:04}" for place in range(number)]


def sequential(length: int, **fields: object) -> dict[str, object]:
    return {"domain": "toys", "history": toys(length), "exclude_history": False} | fields


def on_the_demonstration() -> dict[str, Send]:
    """Kinds of bodies that cost the engine."""
    sequentials: dict[str, dict[str, object]] = {
        "an ordinary request": sequential(5),
        "yes or no about 1,000 items, history of 1,000": sequential(1_000, include_items=toys(1_000), template="A-7"),
        "yes or no about 128 items, history of 1,000": sequential(1_000, include_items=toys(128), template="A-7"),
        "certified, k 100, 256 beams, history of 1,000": sequential(1_000, k=100, num_beams=256, exactness="certified"),
        "10,000 items to exclude": sequential(1_000, exclude_items=[f"{'x' * 80}{n}" for n in range(10_000)]),
    }
    kinds: dict[str, Send] = {kind: sender("/recommend/sequential", body) for kind, body in sequentials.items()}
    kinds["1,000 candidates in one prompt"] = sender("/recommend/direct", {"domain": "toys", "candidates": toys(1_000)})
    kinds["yes or no about 216 candidates with titles"] = sender(
        "/recommend/direct", {"domain": "toys", "candidates": toys(1_000), "template": "B-3"}
    )
    kinds["512 tokens of text with 32 beams"] = sender(
        "/explain", {"domain": "toys", "item_id": "toy-0001", "max_new_tokens": 512, "num_beams": 32}
    )
    kinds[f"{NUM_HELD} bodies of 1 MB, each but for its last byte"] = hold_bodies
    kinds["a body of 1 MB of one field too many"] = lambda server: post_large(server, MEGABYTE)
    return kinds


def on_a_large_catalog() -> dict[str, Send]:
    """Kinds of bodies that cost the planning."""
    where = {
        "category": [f"kind {n}" for n in range(1_000)],
        "tags": [f"tag {n}" for n in range(1_000)],
        "price": [n / 3 for n in range(1_000)],
    }
    asked: dict[str, object] = {"domain": "toys", "history": ["item-1"]}
    page = f"/domains/toys/items?q={quote('number 999999')}"
    return {
        "an ordinary request, many items": sender("/recommend/sequential", asked),
        "3 columns with 1,000 values each, many items": sender("/recommend/sequential", asked | {"where": where}),
        f"{NUM_EMOJI} filters of 1 MB, an emoji in each value, many items": send_emoji,
        "a search for items, many items": lambda server: get(server, page),
    }


def administered(folder: Path) -> dict[str, str]:
    """Settings of a service that can be changed, which records who does."""
    return {
        "VIP5_ADMIN_TOKEN": TOKEN,
        "VIP5_JOURNAL": str(folder / "journal.jsonl"),
        "VIP5_AUDIT_LOG": str(folder / "audit.jsonl"),
    }


def of_administration() -> dict[str, Send]:
    """Kinds of changes, each as large as a body of 1 MB and the schemas allow."""
    added = [{"item_id": f"added-{number}", "index": f"item {100_000 + number}"} for number in range(9_000)]
    changed = {item_id: {"title": "x" * 500, "price": 1.5} for item_id in toys(216)}
    embeddings = {item_id: [0.123] * NUM_FEATURES for item_id in toys(216)}
    catalog = "/admin/domains/toys/catalog"
    return {
        "a change of one item": admin_sender("PATCH", catalog, {"deactivate": ["toy-0001"]}),
        "titles and prices of all items": admin_sender("PATCH", catalog, {"set": changed}),
        "embeddings of all items": admin_sender("PUT", "/admin/domains/toys/features", {"features": embeddings}),
        "9,000 items to add": admin_sender("PATCH", catalog, {"add": added}),
        "a change of one item beside 9,000 that were added": admin_sender("PATCH", catalog, {"activate": ["toy-0001"]}),
    }


def admin_sender(method: str, path: str, body: dict[str, object]) -> Send:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return lambda server: (
        httpx.request(method, f"{server.url}{path}", json=body, headers=headers, timeout=TIMEOUT_S).status_code
    )


def sender(path: str, body: dict[str, object]) -> Send:
    return lambda server: post(server, path, body)


def post(server: Server, path: str, body: dict[str, Any]) -> int:
    return httpx.post(f"{server.url}{path}", json=body, timeout=TIMEOUT_S).status_code


def get(server: Server, path: str) -> int:
    return httpx.get(f"{server.url}{path}", timeout=TIMEOUT_S).status_code


def post_large(server: Server, num_bytes: int) -> int:
    return post(server, "/recommend/sequential", sequential(1) | {"padding": "x" * (num_bytes - 200)})


def send_emoji(server: Server) -> int:
    status = 0
    for number in range(NUM_EMOJI):
        values = [f"{number} {each} " + "x" * 480 + "\N{GRINNING FACE}" for each in range(900)]
        body = {"domain": "toys", "history": ["item-1"], "where": {"category": values, "tags": values}}
        status = post(server, "/recommend/sequential", body)
    return status


def hold_bodies(server: Server) -> int:
    """Sends many bodies without their last byte, asks, and closes the connections; returns its status."""
    url = httpx.URL(server.url)
    head = (
        f"POST /recommend/sequential HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
        f"Content-Length: {MEGABYTE}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        threads = []
        for _ in range(NUM_HELD):
            connection = stack.enter_context(socket.create_connection((url.host, url.port or 80), TIMEOUT_S))
            threads.append(threading.Thread(target=send_all, args=(connection, head + b" " * (MEGABYTE - 1))))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return post(server, "/recommend/sequential", sequential(5))


def send_all(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except OSError:
        return  # refused before its end


# Measurements


def measured(server: Server, kind: str, send: Send) -> Costs:
    post(server, "/recommend/sequential", sequential(5))  # the same connections and caches for all
    before_s, before_mb, cpu_before_s = engine_s(server), reset_peak_mb(server), cpu_s(server)
    started_at = time.perf_counter()
    with probing(server) as probes:
        status = send(server)
    seconds = time.perf_counter() - started_at
    memory_mb = peak_mb(server) - before_mb
    return Costs(
        kind=kind,
        status=status,
        seconds=round(seconds, 3),
        engine_s=round(engine_s(server) - before_s, 3),
        loop_ms=round(max(probe.duration_ms for probe in probes), 1),
        cpu_s=round(cpu_s(server) - cpu_before_s, 3),
        probe_cpu_ms=round(max(probe.cpu_ms for probe in probes), 1),
        memory_mb=round(memory_mb, 1),
    )


@dataclass(frozen=True)
class Probe:
    """How long a probe took, and the service's processor time meanwhile."""

    duration_ms: float
    cpu_ms: float


@contextmanager
def probing(server: Server) -> Iterator[list[Probe]]:
    """Probes during the block."""
    probes = [Probe(0.0, 0.0)]
    is_over = threading.Event()

    def probe() -> None:
        with httpx.Client(base_url=server.url, timeout=TIMEOUT_S) as client:
            client.get("/health/live")
            while not is_over.wait(PROBE_EVERY_S):
                before_s, started_at = cpu_s(server), time.perf_counter()
                client.get("/health/live")
                duration_s = time.perf_counter() - started_at
                probes.append(Probe(duration_s * 1000, (cpu_s(server) - before_s) * 1000))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield probes
    finally:
        is_over.set()
        thread.join()


def cpu_s(server: Server) -> float:
    """Processor time of the service's threads so far."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def engine_s(server: Server) -> float:
    lines = httpx.get(f"{server.admin_url or server.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vip5_engine_busy_seconds_total"))


def reset_peak_mb(server: Server) -> float:
    """Reset the peak of resident memory; returns what is resident now."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return status_mb(server, "VmRSS")


def peak_mb(server: Server) -> float:
    return status_mb(server, "VmHWM")


def status_mb(server: Server, name: str) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
