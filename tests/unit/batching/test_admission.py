from __future__ import annotations

import time

import pytest

from service.batching.composition import BatchBudget
from service.batching.job import AnyJob, Job, Load
from service.batching.queue import JobQueue
from service.batching.work import Work
from service.errors import OverloadedError
from tests.service.plans import search_named

ALLOWED_S = 2.0
BUDGET = BatchBudget(max_rows=8, max_tokens=64)


class OneSecond:
    """Forecasts one second for any queue."""

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        return 1.0

    def batch_s(self, size: int) -> float:
        return 0.1


def job() -> AnyJob:
    return Job(search_named(1), deadline=time.monotonic() + ALLOWED_S)


async def test_jobs_that_took_longer_than_was_forecast_make_admission_stricter() -> None:
    queue: JobQueue[AnyJob] = JobQueue(10, OneSecond())
    queue.check(time.monotonic() + ALLOWED_S)
    queue.put(job())
    (taken,) = queue.take(BUDGET, waits=False) or []
    taken.submitted_at -= 3.0
    queue.mark_done([taken])
    with pytest.raises(OverloadedError, match="would take about"):
        queue.check(time.monotonic() + ALLOWED_S)
    queue.check(time.monotonic() + 60.0)


async def test_jobs_that_were_given_up_while_they_waited_count_too() -> None:
    queue: JobQueue[AnyJob] = JobQueue(10, OneSecond())
    late = job()
    queue.put(late)
    late.submitted_at -= 5.0
    late.deadline = time.monotonic()
    assert queue.take(BUDGET, waits=False) == []
    assert queue.completion_s() > 1.5


async def test_a_batch_is_no_longer_than_suits_the_time_that_a_continued_job_has_left() -> None:
    queue: JobQueue[AnyJob] = JobQueue(10, OneSecond())
    continued: AnyJob = Job(search_named(1), deadline=time.monotonic() + 0.2)
    continued.submitted_at -= 1.8
    continued.queued_at -= 1.8
    continued.continue_with(search_named(2))
    queue.put_continued(continued)
    queue.put_continued(job())
    assert queue.take(BUDGET, waits=False) == [continued]
