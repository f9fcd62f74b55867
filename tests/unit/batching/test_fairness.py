"""Simulated time: a key that sends 20 times the load of another hardly delays it, whatever a row of a batch costs."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from service.batching.composition import BatchBudget
from service.batching.forecast import BatchForecast
from service.batching.job import AnyJob, Job
from service.batching.queue import JobQueue
from service.batching.shares import Client, Shares
from service.errors import OverloadedError, QueueFullError
from service.settings.options import QueueLimits
from tests.service.plans import search_named

SHARE = 0.3
"""Load of the steady key, as a share of the lane's capacity."""
FACTOR = 20
DEADLINE_S = 30.0
NUM_ROWS = 1_500
"""Length of a phase, in times of a row."""
LEAST_S = 5.0
LIMITS = QueueLimits(max_waiting=256, max_batch_rows=64, max_batch_tokens=16_384)
STEADY, BURSTING = Client("steady"), Client("bursting")


@dataclass(frozen=True)
class Device:
    """Durations of batches: fixed, and per row; the real ones vary by up to `noise`."""

    fixed_s: float
    row_s: float
    noise: float = 0.2

    def capacity(self, num_rows: int) -> float:
        """Requests per second in batches of this many rows."""
        return num_rows / (self.fixed_s + self.row_s * num_rows)


DEVICES = {
    "alone": Device(0.01, 0.1),
    "cpu": Device(0.02, 0.045),
    "both": Device(0.03, 0.01),
    "gpu": Device(0.02, 0.001),
}
"""From one whose batches save nothing to one where a further row costs nothing."""


@dataclass
class Lane:
    """A queue and an engine in simulated time."""

    device: Device
    random: random.Random
    now: float = 1_000.0
    waits_s: dict[str, list[float]] = field(default_factory=lambda: {STEADY.name: [], BURSTING.name: []})
    num_refused: dict[str, int] = field(default_factory=lambda: {STEADY.name: 0, BURSTING.name: 0})

    def __post_init__(self) -> None:
        self.forecast = BatchForecast(LIMITS, self.clock)
        self.queue: JobQueue[AnyJob] = JobQueue(LIMITS.max_waiting, self.forecast)
        self.queue._backlog.shares = Shares(self.clock)

    def clock(self) -> float:
        return self.now

    def run(self, arrivals: Iterator[tuple[float, Client]], until: float) -> None:
        """Take what arrives until then, and finish it."""
        coming = next(arrivals)
        while len(self.queue) or coming[0] < until:
            if not len(self.queue):
                coming = self._arrive(*coming, arrivals)
            batch = self.queue.take(BatchBudget(LIMITS.max_batch_rows, LIMITS.max_batch_tokens), waits=False)
            assert batch is not None
            self.forecast.begin(sum(job.size for job in batch))
            duration_s = self.device.fixed_s + self.device.row_s * len(batch)
            end = self.now + duration_s * (1 + self.random.uniform(-1, 1) * self.device.noise)
            while coming[0] < min(end, until):
                coming = self._arrive(*coming, arrivals)
            self.now = end
            self.forecast.end()
            self.queue.mark_done(batch)
            for job in batch:
                self.waits_s[job.client.name].append(self.now - job.submitted_at)

    def _arrive(self, at: float, client: Client, arrivals: Iterator[tuple[float, Client]]) -> tuple[float, Client]:
        self.now = max(self.now, at)
        if self.queue.recent_refusal(client, DEADLINE_S) is not None:
            self.num_refused[client.name] += 1
            return next(arrivals)
        try:
            self.queue.put(Job(search_named(1, 10), deadline=self.now + DEADLINE_S, client=client))
        except (OverloadedError, QueueFullError):
            self.num_refused[client.name] += 1
        return next(arrivals)


def poisson(rates: Mapping[Client, float], start: float, seed: int) -> Iterator[tuple[float, Client]]:
    """Random times; those of a client are the same whoever else comes."""

    def times(client: Client, rate: float) -> Iterator[tuple[float, Client]]:
        draw, at = random.Random(f"{client.name} {seed}"), start
        while True:
            at += draw.expovariate(rate)
            yield at, client

    return heapq.merge(*(times(client, rate) for client, rate in rates.items()), key=lambda arrival: arrival[0])


def lane_after(device: Device, rates: Mapping[Client, float], monkeypatch: pytest.MonkeyPatch) -> Lane:
    """A lane at which such rates have arrived, after single requests of the steady key."""
    lane = Lane(device, random.Random(1))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lane.clock)
        lane.run(poisson({STEADY: rates[STEADY]}, lane.now, seed=1), lane.now + 100 * device.row_s)
        lane.waits_s[STEADY.name].clear()
        lane.run(poisson(rates, lane.now, seed=2), lane.now + max(LEAST_S, NUM_ROWS * device.row_s))
    return lane


def waits_of(device: Device, rates: Mapping[Client, float], monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], int]:
    """The steady key's waits while such rates arrive, and its refusals."""
    lane = lane_after(device, rates, monkeypatch)
    return lane.waits_s[STEADY.name], lane.num_refused[STEADY.name]


@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_a_burst_hardly_delays_another_key(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = SHARE * device.capacity(16)

    async def run() -> None:
        alone, _ = waits_of(device, {STEADY: rate}, monkeypatch)
        beside, num_refused = waits_of(device, {STEADY: rate, BURSTING: FACTOR * rate}, monkeypatch)
        assert num_refused == 0
        assert np.percentile(beside, 99) <= 1.5 * np.percentile(alone, 99)

    asyncio.run(run())
