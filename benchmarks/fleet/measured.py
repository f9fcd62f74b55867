"""What the simulation stands on: what a request and a batch cost in the service, by its threads' processor times."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil  # type: ignore[import-untyped]  # its types are a package of their own
import torch
import uvloop
from scipy.optimize import nnls

from benchmarks.answers import DEMO, held_out
from benchmarks.fleet.load import request_of
from benchmarks.fleet.simulation import Machine
from benchmarks.hot_path import send
from model.engine.offline import rank
from model.planning.runtime import load_runtime
from tests.e2e.processes import Server

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
NUM_TIMED = 16  # batches of each size
CLIENTS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
"""Clients at once that send without a pause, which makes batches of so many sizes."""
NUM_ASKED = 400
NUM_WARM_UP = 160


@dataclass(frozen=True)
class Phase:
    """One number of clients, and what the service used for their requests."""

    clients: int
    requests: float
    rows: float
    """Of all batches. More than requests where searches were widened."""
    batches: float
    loop_s: float
    """Processor time of the event loop's thread."""
    others_s: float
    """Of the other threads: the lane, and those that write."""


@dataclass(frozen=True)
class Costs:
    """Processor seconds; a batch costs `batch_s + rows * row_s`, and `cold_s` more if the lane was idle before."""

    request_s: float
    of_batch_s: float
    """Of the event loop for a batch."""
    batch_s: float
    row_s: float
    cold_s: float
    rows_per_request: float
    worst: float
    """Largest relative difference of a phase's total from what these say."""


def requests_of_demonstration() -> list[bytes]:
    """What a connection sends for each of the demonstration's sequential requests."""
    lines = DEMO.with_name(f"{DEMO.name}-requests.jsonl").read_text(encoding="utf-8").splitlines()
    bodies = [json.loads(line) for line in lines]
    kept = [body for body in bodies if body.pop("task") == "sequential" and "where" not in body]
    return [request_of("/recommend/sequential", json.dumps(body).encode()) for body in kept]


def spread_of_batches() -> dict[int, list[float]]:
    """Times of batches of held-out customers in the engine alone, by size, relative to the mean of the size."""
    torch.set_num_threads(1)
    runtime = load_runtime(DEMO)
    plans = [question.work for question in held_out(runtime, 512)]
    draw = random.Random(5)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for number in range(NUM_TIMED + 2):
        for size in SIZES:
            batch = draw.sample(plans, size)
            started = time.thread_time()
            rank(runtime.engine, batch)
            if number >= 2:  # the first ones warm up
                seconds[size].append(time.thread_time() - started)
    return {size: [each / float(np.mean(times)) for each in times] for size, times in seconds.items()}


def phases_of(server: Server, requests: Sequence[bytes]) -> list[Phase]:
    """Closed loops of several numbers of clients, in turn forwards and backwards."""
    uvloop.run(send(list(requests), NUM_WARM_UP, _port(server), 8))
    return [_phase(server, requests, clients) for clients in (*CLIENTS, *reversed(CLIENTS))]


def _phase(server: Server, requests: Sequence[bytes], clients: int) -> Phase:
    before, loop_s, others_s = batches_of(server), *_threads_s(server)
    uvloop.run(send(list(requests), NUM_ASKED, _port(server), clients))
    loop_after_s, others_after_s = _threads_s(server)
    rows, batches = (one - other for one, other in zip(batches_of(server), before, strict=True))
    return Phase(clients, NUM_ASKED, rows, batches, loop_after_s - loop_s, others_after_s - others_s)


def costs_of(phases: Sequence[Phase]) -> Costs:
    """Costs that explain the phases best, none of them negative. With one client, every batch finds an idle lane."""
    weights = np.array([1 / (phase.loop_s + phase.others_s) for phase in phases])
    loop = np.array([[phase.requests, phase.batches] for phase in phases])
    others = np.array([[phase.batches, phase.rows, phase.batches * (phase.clients == 1)] for phase in phases])
    (request_s, of_batch_s), _ = nnls(loop * weights[:, None], np.array([phase.loop_s for phase in phases]) * weights)
    (batch_s, row_s, cold_s), _ = nnls(others * weights[:, None], np.array([p.others_s for p in phases]) * weights)
    found = loop @ [request_s, of_batch_s] + others @ [batch_s, row_s, cold_s]
    worst = float(np.max(np.abs(found * weights - 1)))
    rows_per_request = sum(phase.rows for phase in phases) / sum(phase.requests for phase in phases)
    return Costs(*map(float, (request_s, of_batch_s, batch_s, row_s, cold_s, rows_per_request, worst)))


def machine_of(costs: Costs, spread: dict[int, list[float]]) -> Machine:
    """A machine whose batches cost so much, with the spread of the engine alone, on one processor."""
    batch_s = {
        size: [(costs.batch_s + size * costs.row_s) * each for each in relative] for size, relative in spread.items()
    }
    return Machine(
        batch_s,
        front_s=costs.request_s,
        of_batch_s=costs.of_batch_s,
        cold_s=costs.cold_s,
        rows_per_request=max(1.0, costs.rows_per_request),
    )


def told(costs: Costs) -> dict[str, float]:
    """In microseconds."""
    return {
        name: round(each if name in {"rows_per_request", "worst"} else 1e6 * each, 3)
        for name, each in asdict(costs).items()
    }


def _port(server: Server) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


def _threads_s(server: Server) -> tuple[float, float]:
    """Processor seconds so far of the event loop's thread and of all others."""
    loop_s = others_s = 0.0
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        seconds = int((task / "schedstat").read_text().split()[0]) / 1e9
        if int(task.name) == server.process.pid:
            loop_s += seconds
        else:
            others_s += seconds
    return loop_s, others_s


def used_s(server: Server) -> float:
    """Processor seconds so far of the whole process."""
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


def batches_of(server: Server) -> tuple[float, float]:
    """Rows and batches so far."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    found = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("vip5_batch_size_")}
    return found["vip5_batch_size_sum"], found["vip5_batch_size_count"]
