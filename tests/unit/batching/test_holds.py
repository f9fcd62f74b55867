"""A refusal holds for a moment, for what would be refused just so."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from service.batching import holds
from service.batching.holds import Holds
from service.batching.job import AnyJob, Job, Load
from service.batching.queue import JobQueue
from service.batching.shares import Client
from service.batching.work import Work
from service.errors import OverloadedError, QueueFullError
from tests.service.plans import attribution_named, search_named

ONE, OTHER = Client("one"), Client("other")


class TwoSeconds:
    """Forecasts two seconds for any queue."""

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        return 2.0

    def batch_s(self, size: int) -> float:
        return 0.1


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: times[0])
    return times


def job(client: Client, deadline_s: float) -> AnyJob:
    return Job(search_named(1), deadline=time.monotonic() + deadline_s, client=client)


def test_a_refusal_holds_for_the_same_client_and_no_longer_deadlines(now: list[float]) -> None:
    async def run() -> None:
        queue: JobQueue[AnyJob] = JobQueue(10, TwoSeconds())
        assert queue.recent_refusal(ONE, 1.0) is None, "nothing was refused"
        with pytest.raises(OverloadedError):
            queue.put(job(ONE, 1.0))
        for deadline_s in (0.1, 1.0, 3.0):  # of which 0.65 are less than the forecast
            refusal = queue.recent_refusal(ONE, deadline_s)
            assert isinstance(refusal, OverloadedError)
            assert f"the deadline is in {deadline_s:.2f} s" in str(refusal)
            assert refusal.retry_after_s
        assert queue.recent_refusal(ONE, 3.2) is None
        queue.put(job(ONE, 3.2))
        assert queue.recent_refusal(OTHER, 1.0) is None
        now[0] += holds.HOLD_S
        assert queue.recent_refusal(ONE, 1.0) is None

    asyncio.run(run())


def test_a_full_queue_refuses_whatever_the_deadline(now: list[float]) -> None:
    async def run() -> None:
        queue: JobQueue[AnyJob] = JobQueue(1, TwoSeconds())
        queue.put(job(ONE, 100.0))
        with pytest.raises(QueueFullError):
            queue.put(job(ONE, 100.0))
        assert isinstance(queue.recent_refusal(ONE, 10_000.0), QueueFullError)
        assert now

    asyncio.run(run())


def test_the_refusal_of_a_patient_job_does_not_hold_for_others(now: list[float]) -> None:
    async def run() -> None:
        queue: JobQueue[AnyJob] = JobQueue(1, TwoSeconds())
        patient: AnyJob = Job(attribution_named((1,)), deadline=now[0] + 100.0, client=ONE)
        late: AnyJob = Job(attribution_named((2,)), deadline=now[0] + 1.0, client=ONE)
        with pytest.raises(OverloadedError):
            queue.put(late)
        queue.put(patient)
        with pytest.raises(QueueFullError):
            queue.put(Job(attribution_named((3,)), deadline=now[0] + 100.0, client=ONE))
        assert queue.recent_refusal(ONE, 1.0) is None
        assert not queue.forecast_for(ONE)[2], "a ranking takes the place of the patient job"
        queue.put(job(ONE, 100.0))

    asyncio.run(run())


def test_a_refusal_is_shorter_than_the_backlog_that_it_is_due_to(now: list[float]) -> None:
    found = Holds()
    found.note("one", 1.0, 0.01, lambda _: QueueFullError("full"))
    now[0] += 0.005
    assert found.find("one", 0.5) is None


def test_the_number_of_clients_is_bounded(now: list[float]) -> None:
    found = Holds()
    for number in range(2 * holds.MAX_HOLDS):
        found.note(str(number), 1.0, 10.0, lambda _: QueueFullError("full"))
    assert len(found._holds) == holds.MAX_HOLDS
    now[0] += 1.0
    found.note("new", math.inf, 10.0, lambda _: QueueFullError("full"))
    assert found.find("new", 1.0) is not None
    assert len(found._holds) == 1
