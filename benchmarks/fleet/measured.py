"""What the simulation stands on: what a request and a batch cost in the service, by its threads' processor times."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil  # type: ignore[import-untyped]  # its types are a package of their own
import torch
import uvloop
from scipy.optimize import nnls

from benchmarks.answers import DEMO, held_out
from benchmarks.fleet.load import Sent, request_of, send_at_random
from benchmarks.fleet.simulation import Machine
from benchmarks.hot_path import send
from model.engine.offline import rank
from model.planning.runtime import load_runtime
from tests.e2e.processes import Server

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
NUM_TIMED = 16  # batches of each size
NUM_GUESSED = 1600
NUM_CLIENTS = 32


@dataclass(frozen=True)
class Phase:
    """Some seconds of requests at random times, and what the service used for them."""

    requests: float
    rows: float
    """Of all batches. More than requests where searches were widened."""
    batches: float
    cold: float
    """Batches that found the lane idle."""
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

    def of_phase(self, phase: Phase) -> float:
        """What a phase should have used."""
        engine_s = phase.batches * self.batch_s + phase.rows * self.row_s + phase.cold * self.cold_s
        return engine_s + phase.requests * self.request_s + phase.batches * self.of_batch_s

    @property
    def busy_s(self) -> float:
        """Of a request, with its share of a batch of the largest size."""
        engine_s = self.batch_s / SIZES[-1] + self.row_s
        return engine_s * self.rows_per_request + self.request_s + self.of_batch_s / SIZES[-1]


@dataclass(frozen=True)
class Counts:
    """What the service has counted and used so far."""

    rows: float
    batches: float
    busy_s: float
    """Time that the lane was in the engine."""
    loop_s: float
    others_s: float

    @classmethod
    def of(cls, server: Server) -> Counts:
        with server.client() as client:
            lines = client.get("/metrics").text.splitlines()
        found = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vip5_")}
        return cls(
            found["vip5_batch_size_sum"],
            found["vip5_batch_size_count"],
            found['vip5_engine_busy_seconds_total{lane="ranking"}'],
            *_threads_s(server),
        )


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


def guessed_rate(server: Server, requests: Sequence[bytes]) -> float:
    """Requests of clients without a pause by the processor time that the service used: somewhat above its capacity."""
    for _ in range(2):  # the first time warms up
        before = _threads_s(server)
        uvloop.run(send(list(requests), NUM_GUESSED, _port(server), NUM_CLIENTS))
    return NUM_GUESSED / (sum(_threads_s(server)) - sum(before))


def phase_of(server: Server, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> tuple[Phase, Sent]:
    """Send `rate` requests a second at random times.

    The next request comes after a mean of 1 / rate however long the lane has been idle, so it is idle about
    rate * (time that it is idle) times.
    """
    before, began_s = Counts.of(server), time.monotonic()
    sent = send_at_random(server.url, requests, rate, seconds, seed)
    idle_s, after = time.monotonic() - began_s, Counts.of(server)
    rows, batches, busy_s, loop_s, others_s = np.subtract(astuple(after), astuple(before)).tolist()
    cold = min(batches, max(0.0, (idle_s - busy_s) * rate))
    return Phase(len(sent.latencies_s), rows, batches, cold, loop_s, others_s), sent


def costs_of(phases: Sequence[Phase]) -> Costs:
    """Costs that explain the phases best, none of them negative."""
    weights = np.array([1 / (phase.loop_s + phase.others_s) for phase in phases])
    loop = np.array([[phase.requests, phase.batches] for phase in phases])
    others = np.array([[phase.batches, phase.rows, phase.cold] for phase in phases])
    (request_s, of_batch_s), _ = nnls(loop * weights[:, None], np.array([phase.loop_s for phase in phases]) * weights)
    (batch_s, row_s, cold_s), _ = nnls(others * weights[:, None], np.array([p.others_s for p in phases]) * weights)
    rows_per_request = sum(phase.rows for phase in phases) / sum(phase.requests for phase in phases)
    found = Costs(*map(float, (request_s, of_batch_s, batch_s, row_s, cold_s, rows_per_request, 0.0)))
    return replace(found, worst=max(abs(1 / each - 1) for each in slowness_of(phases, found)))


def slowness_of(phases: Sequence[Phase], costs: Costs) -> list[float]:
    """What each phase used, relative to what the costs say: a machine's speed is not the same all the time."""
    return [(phase.loop_s + phase.others_s) / costs.of_phase(phase) for phase in phases]


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
