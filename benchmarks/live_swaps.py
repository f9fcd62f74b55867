"""Do version swaps affect requests, and can an out-of-stock item be recommended?

Question  While a domain's weights are swapped repeatedly at 70 % of the service's capacity: do requests fail, do
          answers mix two versions, and how do latency and memory change? While items go out of stock and back: does any
          answer contain an item whose deactivation was acknowledged before the request was sent?
Method    `vip5 serve` in its own process, clients in others. Capacity is measured first, with 8 clients in a closed
          loop. Then requests arrive at 70 % of it at regular intervals, in alternating phases with one swap per second
          and without swaps. The versions are the demonstration's toys domain, and two variants with noise on the
          adapter; each is reloaded every time. Every answer is compared with that of `vip5 predict` for the bundle that
          it names. Stock: 4 clients on a tiny model; an item that is often ranked first is deactivated and activated
          every 0.2 s.
Output    p50 and p99 with and without swaps, failures, wrong answers, memory; requests and violations; the last line is
          JSON.

    python -m benchmarks.live_swaps [--swaps 50] [--requests 100000]

With workers (`--workers 3 --kill --stop --requests 20000`): swaps, catalog patches and canaries without a pause while
16 clients ask, half of them over a new connection each time. In the middle of changes one worker is killed (SIGKILL)
and one stopped (SIGSTOP). Every answer is recomputed for the bundle and the catalog's revision that it names; what was
asked after the answer to a change must show it, on every connection; the clients' counts must be those of /metrics.
Requests on connections that broke with a worker are counted apart: they have no answer, and the service may have
counted them.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import torch
from tokenizers import Tokenizer

from benchmarks.live_changes import measure_changes
from model.bundle.bundle import open_bundle
from model.bundle.features import load_features
from model.bundle.writer import BundleWriter
from tests.e2e.live import change, check_answers, client_of, live_environment, recomputed
from tests.e2e.load import Answer
from tests.e2e.processes import ROOT, Server, serving
from tests.service.live import AUTHORIZED
from tests.tiny import tiny_bundle

BUNDLES = ("first", "second", "third")
NUM_PHASES = 5
SWAP_EVERY_S = 1.0
CAPACITY_S = 6.0
LOAD = 0.7
NUM_CLIENTS = 8
NUM_HISTORIES = 60
NUM_SHOPPERS = 4
PAUSE_S = 0.2


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the scheduled arrival of a request."""

    num_requests: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, durations_s: Sequence[float]) -> Latency:
        p50, p99 = np.percentile(np.array(durations_s) * 1000, [50, 99])
        return cls(len(durations_s), round(float(p50), 1), round(float(p99), 1))


# Swaps


def write_variant(root: Path, source: Path, seed: int) -> None:
    """Write the toys domain of a bundle, with noise on its adapter if the seed is not 0."""
    bundle = open_bundle(source)
    files = bundle.domains["toys"]
    generator = torch.Generator().manual_seed(seed)
    adapter = {
        name: tensor + 0.02 * bool(seed) * tensor.std(unbiased=False) * torch.randn(tensor.shape, generator=generator)
        for name, tensor in files.adapter.items()
    }
    features = None if files.features_path is None else load_features(files.features_path)
    with BundleWriter(root) as writer:
        tokenizer = Tokenizer.from_file(str(source / "backbone" / "tokenizer.json"))
        writer.share_backbone(bundle.backbone.config, bundle.backbone.weights, tokenizer)
        writer.add_domain(files.spec, adapter, files.catalog, users=files.users, features=features)
        writer.seal()


def asks(source: Path) -> list[dict[str, Any]]:
    item_ids = open_bundle(source).domains["toys"].catalog.item_ids
    drawn = np.random.default_rng(5).integers(0, len(item_ids), size=(NUM_HISTORIES, 5))
    return [{"domain": "toys", "history": [item_ids[row] for row in rows], "k": 5} for rows in drawn.tolist()]


class Arrivals:
    """Sends requests and stores the answers."""

    def __init__(self, client: httpx.AsyncClient, requests: Sequence[dict[str, Any]]) -> None:
        self._client = client
        self._requests = requests
        self._number = 0
        self.answers: list[Answer] = []

    async def ask(self) -> None:
        request = self._requests[self._number % len(self._requests)]
        self._number += 1
        response = await self._client.post("/recommend/sequential", json=request)
        self.answers.append(Answer(response.status_code, response.json(), request))

    async def capacity(self, duration_s: float) -> float:
        """Requests per second of closed-loop clients."""
        ends_at = time.perf_counter() + duration_s
        before = len(self.answers)

        async def client() -> None:
            while time.perf_counter() < ends_at:
                await self.ask()

        await asyncio.gather(*(client() for _ in range(NUM_CLIENTS)))
        return (len(self.answers) - before) / duration_s

    async def steadily(self, rate: float, until: asyncio.Event) -> list[float]:
        """Durations of requests that arrive at regular intervals until the event."""
        durations: list[float] = []
        running: list[asyncio.Task[None]] = []
        started_at = time.perf_counter()

        async def one(due_at: float) -> None:
            await self.ask()
            durations.append(time.perf_counter() - due_at)

        while not until.is_set():
            due_at = started_at + len(running) / rate
            await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
            running.append(asyncio.create_task(one(due_at)))
        await asyncio.gather(*running)
        return durations


async def measure_swaps(folder: Path, num_swaps: int) -> dict[str, Any]:
    source = ROOT / "demo" / "bundle"
    for seed, name in enumerate(BUNDLES):
        write_variant(folder / name, source, seed)
    names = itertools.cycle((*BUNDLES[1:], BUNDLES[0]))
    with serving(folder / "first", live_environment(folder)) as server:
        async with client_of(server) as client, client_of(server) as admin:
            arrivals = Arrivals(client, asks(source))
            await arrivals.capacity(CAPACITY_S / 3)
            capacity = await arrivals.capacity(CAPACITY_S)
            await swap(admin, names, 3)
            rss_before = rss_mb(server)
            quiet: list[float] = []
            swapping: list[float] = []
            swaps_s: list[float] = []
            for _ in range(NUM_PHASES):
                seconds, busy = await phase(arrivals, LOAD * capacity, swap(admin, names, num_swaps // NUM_PHASES))
                swapping += busy
                swaps_s += seconds
                _, calm = await phase(arrivals, LOAD * capacity, idle(SWAP_EVERY_S * len(seconds)))
                quiet += calm
            rss_after = rss_mb(server)
            slots = (await admin.get("/admin/domains", headers=AUTHORIZED)).json()["num_slots"]
    check_answers(arrivals.answers, await recomputed([folder / name for name in BUNDLES], arrivals.answers, folder))
    return {
        "capacity_rps": round(capacity, 1),
        "without_swaps": asdict(Latency.of(quiet)),
        "with_swaps": asdict(Latency.of(swapping)),
        "num_swaps": len(swaps_s),
        "swap_ms_median": round(float(np.median(swaps_s)) * 1000, 1),
        "failures": sum(answer.status != 200 for answer in arrivals.answers),
        "answers_recomputed": len(arrivals.answers),
        "versions_seen": len({answer.body["bundle"] for answer in arrivals.answers}),
        "rss_mb": [rss_before, rss_after],
        "slots_at_the_end": slots,
    }


async def phase(
    arrivals: Arrivals, rate: float, work: Coroutine[Any, Any, list[float]]
) -> tuple[list[float], list[float]]:
    """The result of `work`, and the durations of requests during it."""
    is_over = asyncio.Event()
    load = asyncio.create_task(arrivals.steadily(rate, is_over))
    result = await work
    is_over.set()
    return result, await load


async def swap(admin: httpx.AsyncClient, names: Iterator[str], number: int) -> list[float]:
    """Once per second, load the next bundle, which is not loaded, and swap to it; returns the durations."""
    durations = []
    for _ in range(number):
        started_at = time.perf_counter()
        await change(admin, "POST", "/load", bundle=next(names), activate=True)
        durations.append(time.perf_counter() - started_at)
        await asyncio.sleep(max(0.0, SWAP_EVERY_S - durations[-1]))
    return durations


async def idle(duration_s: float) -> list[float]:
    await asyncio.sleep(duration_s)
    return []


def rss_mb(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return round(int(line.split()[1]) / 1024, 1)


# Stock


@dataclass(frozen=True)
class Seen:
    """The outcome of one request; times are those of the system-wide monotonic clock."""

    sent_at: float
    received_at: float
    status: int
    item_ids: list[str]


def shop(url: str, number: int, seed: int, out: Path) -> None:
    """One client that sends `number` requests in sequence."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    drawn = np.random.default_rng(seed).integers(1, 121, size=(number, 3)).tolist()
    seen = []
    for rows in drawn:
        body = json.dumps({"domain": "toys", "history": [f"item-{row}" for row in rows], "k": 3})
        sent_at = time.monotonic()
        connection.request("POST", "/recommend/sequential", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        item_ids = [item["item_id"] for item in answer.get("items", ())]
        seen.append(Seen(sent_at, time.monotonic(), response.status, item_ids))
    out.write_text(json.dumps([asdict(each) for each in seen]), encoding="utf-8")


async def measure_stock(folder: Path, num_requests: int) -> dict[str, Any]:
    bundle = tiny_bundle(folder)
    with serving(bundle, live_environment(folder)) as server:
        clients = start_shoppers(server.url, num_requests, folder)
        started_at = time.monotonic()
        async with client_of(server) as admin:
            answer = await admin.post("/recommend/sequential", json={"domain": "toys", "history": ["item-1"], "k": 1})
            item_id = answer.json()["items"][0]["item_id"]
            absences = await toggle(admin, item_id, clients)
        seen = read_shoppers(folder)
        duration_s = time.monotonic() - started_at
    late = [
        each
        for each in seen
        if item_id in each.item_ids and any(out < each.sent_at and each.received_at < back for out, back in absences)
    ]
    absent = sum(any(out < each.sent_at and each.received_at < back for out, back in absences) for each in seen)
    return {
        "requests": len(seen),
        "seconds": round(duration_s, 1),
        "failures": sum(each.status != 200 for each in seen),
        "changes": 2 * len(absences),
        "requests_while_out_of_stock": absent,
        "answers_with_the_item_in_all": sum(item_id in each.item_ids for each in seen),
        "violations": len(late),
    }


def start_shoppers(url: str, num_requests: int, folder: Path) -> list[BaseProcess]:
    context = multiprocessing.get_context("spawn")
    clients: list[BaseProcess] = []
    for number in range(NUM_SHOPPERS):
        arguments = (url, num_requests // NUM_SHOPPERS, number, folder / f"shopper-{number}.jsonl")
        clients.append(context.Process(target=shop, args=arguments, daemon=True))
        clients[-1].start()
    return clients


def read_shoppers(folder: Path) -> list[Seen]:
    files = sorted(folder.glob("shopper-*.jsonl"))
    return [Seen(**each) for file in files for each in json.loads(file.read_text(encoding="utf-8"))]


async def toggle(admin: httpx.AsyncClient, item_id: str, clients: Sequence[BaseProcess]) -> list[tuple[float, float]]:
    """Deactivate and activate an item until the clients finish; returns the periods in which it was inactive."""
    absences = []
    while any(client.is_alive() for client in clients):
        await change(admin, "PATCH", "/catalog", deactivate=[item_id])
        out_at = time.monotonic()
        await asyncio.sleep(PAUSE_S)
        absences.append((out_at, time.monotonic()))
        await change(admin, "PATCH", "/catalog", activate=[item_id])
        await asyncio.sleep(PAUSE_S)
    return absences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=50, help="number of swaps; 0 skips this part (default: 50)")
    parser.add_argument(
        "--requests",
        type=int,
        default=100_000,
        help="number of requests while the item's stock changes (default: 100000)",
    )
    parser.add_argument("--workers", type=int, default=0, help="worker processes; with some, --swaps is not used")
    parser.add_argument("--kill", action="store_true", help="kill a worker in the middle of a change")
    parser.add_argument("--stop", action="store_true", help="stop a worker in the middle of a change")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if options.workers:
        signals = [signal.SIGKILL] * options.kill + [signal.SIGSTOP] * options.stop
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measure_changes(Path(folder), options.workers, options.requests, signals))
        for name, value in found.items():
            print(f"{name:28} {value}", flush=True)
        print(json.dumps(found))
        return
    if options.swaps:
        with tempfile.TemporaryDirectory() as folder:
            found["swaps"] = asyncio.run(measure_swaps(Path(folder), options.swaps))
        for name, value in found["swaps"].items():
            print(f"{name:28} {value}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found["stock"] = asyncio.run(measure_stock(Path(folder), options.requests))
    for name, value in found["stock"].items():
        print(f"{name:28} {value}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
