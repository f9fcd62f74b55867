"""What is kept of waiting jobs together equals what adding up each of them gives, and asking for it looks at few."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from service.batching import backlog as backlog_module
from service.batching.backlog import Backlog, place_of
from service.batching.job import AnyJob, Job, Load
from service.batching.shares import Client
from service.batching.work import Work
from tests.service.plans import attribution_named, search_named

CLIENTS = [Client("one"), Client("two", 3.0), Client("three", 0.5)]


def new_job(draw: random.Random, number: int) -> AnyJob:
    plan = attribution_named([number]) if draw.random() < 0.2 else search_named(number)
    job: AnyJob = Job(plan, client=draw.choice(CLIENTS))
    job.size = draw.randrange(1, 50)
    return job


def change(backlog: Backlog[AnyJob], draw: random.Random, number: int) -> None:
    choice = draw.random()
    if choice < 0.6 or not backlog.jobs:
        backlog.insert(new_job(draw, number))
    elif choice < 0.75:
        backlog.remove(draw.sample(backlog.jobs, draw.randrange(1, len(backlog) + 1)))
    elif choice < 0.9:
        kind = [job for job in backlog.jobs if job.is_patient == backlog.jobs[0].is_patient]
        batch = kind[: draw.randrange(1, 4)]
        for job in batch:
            backlog.shares_of(job.is_patient).start(job.client, job.size, job.place)
        backlog.take(batch)
        if draw.random() < 0.3:
            backlog.put_back(batch)
    elif choice > 0.98:
        backlog.clear()


@pytest.mark.parametrize("seed", range(4))
def test_sums_and_counts_are_those_of_the_jobs(seed: int) -> None:
    async def run() -> None:
        draw, backlog = random.Random(seed), Backlog[AnyJob]()
        for number in range(300):
            change(backlog, draw, number)
            jobs = backlog.jobs
            others = [job for job in jobs if not job.is_patient]
            own = Counter(job.client.name for job in others)
            assert backlog.work == Work.of(others)
            assert [backlog.num_of(client) for client in CLIENTS] == [own[client.name] for client in CLIENTS]
            assert backlog.largest == max(own.values(), default=0)
            for client in CLIENTS:
                is_patient, size = draw.random() < 0.3, draw.randrange(1, 50)
                place = is_patient, backlog.shares_of(is_patient).place(client, size)
                before = [job for job in jobs if place_of(job) <= place]
                assert backlog.ahead(client, size, is_patient=is_patient) == Work.of(before)
            if own:
                last, num_jobs = backlog.last_of_largest()
                assert num_jobs == own[last.client.name] == max(own.values())
                assert last is [job for job in others if job.client.name == last.client.name][-1]

    asyncio.run(run())


def test_an_admission_looks_at_no_more_jobs_when_more_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    class Counted(Work):
        @classmethod
        def of(cls, loads: Sequence[Load]) -> Work:  # type: ignore[override]  # of a sequence
            looked_at.append(len(loads))
            return Work.of(loads)

    async def run() -> None:
        monkeypatch.setattr(backlog_module, "Work", Counted)
        busy, other, backlog = Client("busy"), Client("other"), Backlog[AnyJob]()
        for number in range(200):
            backlog.insert(Job(search_named(number), client=busy))
        looked_at.clear()
        assert backlog.ahead(busy, 1).num_jobs == 200
        assert backlog.ahead(other, 1).num_jobs <= 1
        assert backlog.work.num_jobs == 200
        assert backlog.largest == 200
        assert sum(looked_at) <= 1

    asyncio.run(run())
