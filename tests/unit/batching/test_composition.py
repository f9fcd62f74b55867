"""Which jobs run together while one client bursts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from service.batching.composition import SHARED_GROWTH, BatchBudget, beside_burst, extended, within_budget
from service.batching.job import AnyJob, Job, Load
from service.batching.queue import JobQueue
from service.batching.shares import Client
from service.batching.work import Work
from tests.service.plans import search_named

BURST, OTHER = Client("burst"), Client("other")


@dataclass(frozen=True)
class Device:
    """Forecasts of an engine whose batches take `fixed_s`, and `row_s` for each job."""

    fixed_s: float
    row_s: float

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        return 0.0

    def batch_s(self, size: int) -> float:
        return self.fixed_s + self.row_s * size / job(BURST).size


def job(client: Client) -> AnyJob:
    return Job(search_named(1, 10), deadline=math.inf, client=client)


def jobs(*clients: Client) -> list[AnyJob]:
    return [job(client) for client in clients]


def names(batch: Sequence[AnyJob]) -> list[str]:
    return [each.client.name for each in batch]


async def test_the_others_jobs_stay_in_a_batch_that_a_burst_would_fill() -> None:
    waiting = jobs(OTHER, *[BURST] * 30, OTHER, OTHER)

    batch = beside_burst(waiting, Device(0.02, 0.01), BURST.name)

    assert [each for each in batch if each.client is OTHER] == [waiting[0], *waiting[-2:]]


async def test_a_burst_lengthens_the_others_batch_by_a_quarter() -> None:
    device = Device(0.02, 0.001)

    batch = beside_burst(jobs(OTHER, OTHER, *[BURST] * 30), device, BURST.name)

    alone_s = device.batch_s(2 * job(OTHER).size)
    num_burst = names(batch).count("burst")
    assert num_burst == 5
    assert 0.022 + 0.001 * num_burst <= SHARED_GROWTH * alone_s < 0.022 + 0.001 * (num_burst + 1)


async def test_a_burst_that_leads_lets_the_others_come_along() -> None:
    batch = beside_burst(jobs(BURST, BURST, OTHER, OTHER), Device(0.02, 0.001), BURST.name)

    assert names(batch) == ["burst", "other", "other", "burst"]


async def test_jobs_run_one_after_another_where_a_batch_saves_nothing() -> None:
    assert names(beside_burst(jobs(OTHER, OTHER, BURST), Device(0.01, 0.1), BURST.name)) == ["other"]
    assert names(beside_burst(jobs(OTHER, OTHER, BURST), Device(0.03, 0.03), BURST.name)) == ["other", "other"]


async def test_a_batch_ends_at_a_share_of_the_shortest_time_budget() -> None:
    waiting = jobs(*[OTHER] * 10)
    waiting[3].deadline = waiting[3].queued_at + 0.25

    assert len(extended(waiting[:1], waiting[1:], Device(0.01, 0.01))) == 4
    assert len(extended(waiting[:1], waiting[1:3] + waiting[4:], Device(0.01, 0.01))) == 9


async def test_a_client_is_ahead_of_its_share_by_one_full_batch_at_most() -> None:
    waiting = jobs(*[BURST] * 8, *[OTHER] * 8)

    batch = within_budget(waiting, waiting[0], BatchBudget(max_rows=10, max_tokens=1_000), lambda *_: True)

    assert names(beside_burst(batch, Device(0.02, 0.001), BURST.name)).count("other") == 2


@pytest.mark.parametrize("device", [Device(0.01, 0.1), Device(0.03, 0.01), Device(0.02, 0.001)])
async def test_both_get_half_in_the_end_whoever_has_more_waiting(device: Device) -> None:
    queue: JobQueue[AnyJob] = JobQueue(1_000, device)
    answered: Counter[str] = Counter()
    missing = {BURST: 60, OTHER: 20}
    for _ in range(400):
        for client, number in missing.items():
            for _ in range(number):
                queue.put(job(client))
        batch = queue.take(BatchBudget(max_rows=16, max_tokens=16_384), waits=False) or []
        missing = {client: names(batch).count(client.name) for client in missing}
        answered.update(names(batch))
    assert 0.45 < answered[OTHER.name] / answered.total() < 0.55
