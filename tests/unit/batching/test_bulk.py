"""Requests of one body get all their places or none, and give way to those that come alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.batching.bulk import CALL_S, COMPANY_S, BulkJobs, Places, Request
from service.batching.composition import BatchBudget
from service.batching.forecast import BatchForecast, RetryJitter
from service.batching.job import AnyJob, ExpectedLoad, Job, Load
from service.batching.queue import JobQueue
from service.batching.shares import Client
from service.batching.work import Work
from service.errors import DrainingError, LoadTooLargeError, OverloadedError, QueueFullError
from service.settings.options import QueueLimits
from tests.service.plans import search_named

BUDGET = BatchBudget(max_rows=100, max_tokens=100_000)
LONG_S = 1000.0
LIMITS = QueueLimits(max_waiting=8, max_batch_rows=4, max_batch_tokens=64)


class Proportional:
    """Forecasts a second for each job."""

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        return float(waiting.num_rows + (job is not None))

    def batch_s(self, size: int) -> float:
        return 0.001 * size


def requests(number: int, deadline_s: float = LONG_S) -> list[Request]:
    return [Request(ExpectedLoad(1, 1, 5), time.monotonic() + deadline_s)] * number


def job(name: int, client: str = "", *, is_bulk: bool = False) -> AnyJob:
    return Job(search_named(name), deadline=time.monotonic() + LONG_S, client=Client(client), is_bulk=is_bulk)


def new_queue(max_waiting: int = 8) -> JobQueue[AnyJob]:
    return JobQueue(max_waiting, BatchForecast(LIMITS))


def names(batch: Sequence[AnyJob] | None) -> list[int]:
    return [each.plan.k for each in batch or ()]


class Accounts(RuleBasedStateMachine):
    """Places are neither lost nor given twice, whatever the order in which they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = new_queue()
        self.held: list[tuple[Places, int]] = []
        self.num_bulk = self.num_alone = 0

    def teardown(self) -> None:
        self.loop.close()

    def job(self, name: int, *, is_bulk: bool) -> AnyJob:
        async def make() -> AnyJob:
            return job(name, is_bulk=is_bulk)

        return self.loop.run_until_complete(make())

    @rule(number=st.integers(1, 8))
    def admit(self, number: int) -> None:
        if len(self.held) + self.num_bulk + number > 8:
            with pytest.raises(QueueFullError, match="none of them was admitted"):
                self.queue.admit(requests(number))
        else:
            places = self.queue.admit(requests(number))
            self.held += [(places, each) for each in range(number)]

    @rule(number=st.integers(9, 300))
    def admit_too_many(self, number: int) -> None:
        with pytest.raises(LoadTooLargeError, match="at most 8 can wait at once"):
            self.queue.admit(requests(number))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        places, number = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.queue.put_admitted(self.job(1, is_bulk=True), places, number)
        self.num_bulk += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_whole=st.booleans())
    def give_up(self, data: st.DataObject, *, is_whole: bool) -> None:
        places, number = data.draw(st.sampled_from(self.held))
        self.queue.give_up(places, None if is_whole else number)
        self.held = [each for each in self.held if each[0] is not places or not (is_whole or each[1] == number)]

    @precondition(lambda self: self.num_alone < 8)
    @rule()
    def put_alone(self) -> None:
        self.queue.put(self.job(2, is_bulk=False))
        self.num_alone += 1

    @rule()
    def take(self) -> None:
        batch = names(self.queue.take(BUDGET, waits=False))
        if self.num_alone:
            assert batch == [2] * self.num_alone
            self.num_alone = 0
        else:
            assert batch == [1] * self.num_bulk
            self.num_bulk = 0

    @invariant()
    def all_wait(self) -> None:
        assert len(self.queue) == self.num_bulk + self.num_alone


TestAccounts = Accounts.TestCase


async def test_those_that_come_alone_go_first_and_keep_their_room() -> None:
    queue = new_queue(2)
    places = queue.admit(requests(2))
    for number in range(2):
        queue.put_admitted(job(number + 1, is_bulk=True), places, number)
    queue.put(job(8))
    queue.put(job(9))
    with pytest.raises(QueueFullError, match="2 requests are waiting, the limit is 2"):
        queue.put(job(10))

    assert names(queue.take(BUDGET, waits=False)) == [8, 9]
    assert names(queue.take(BUDGET, waits=False)) == [1, 2]


async def test_of_several_clients_each_gets_its_share_of_what_is_left() -> None:
    queue = new_queue(20)
    for client, named in (("a", 1), ("b", 2)):
        places = queue.admit(requests(6), Client(client))
        for number in range(6):
            queue.put_admitted(job(named, client, is_bulk=True), places, number)
    queue.put(job(3, "a"))
    queue.put(job(4, "b"))
    small = BatchBudget(max_rows=4, max_tokens=100)

    assert sorted(names(queue.take(small, waits=False))) == [3, 4]
    assert sorted(names(queue.take(small, waits=False))) == [1, 1, 2, 2]


async def test_a_batch_does_not_put_back_what_its_client_asks_for_alone() -> None:
    queue = new_queue(20)
    places = queue.admit(requests(20), Client("a"))
    for number in range(20):
        queue.put_admitted(job(1, "a", is_bulk=True), places, number)
    queue.put(job(2, "a"))
    queue.put(job(3, "b"))
    queue.put(job(4, "b"))

    assert names(queue.take(BatchBudget(1, 100), waits=False)) == [2]


async def test_all_must_be_in_time_or_none_is_admitted() -> None:
    queue: JobQueue[AnyJob] = JobQueue(8, Proportional())
    queue.put(job(1))
    with pytest.raises(OverloadedError, match="the first 8 of the 8 requests would take about 9") as refused:
        queue.admit(requests(8, deadline_s=10.0))
    assert (refused.value.retry_after_s or 0) >= 1
    early_last = [*requests(3, deadline_s=100.0), *requests(1, deadline_s=5.0)]
    early_first = [*requests(1, deadline_s=5.0), *requests(3, deadline_s=100.0)]
    with pytest.raises(OverloadedError, match="the first 4 of the 4"):
        queue.admit(early_last)
    queue.give_up(queue.admit(early_first))
    queue.admit(requests(3, deadline_s=10.0))
    with pytest.raises(OverloadedError):
        queue.admit(requests(4, deadline_s=10.0))


async def test_the_time_to_come_back_counts_requests_that_are_still_planned() -> None:
    queue: JobQueue[AnyJob] = JobQueue(8, Proportional(), jitter=RetryJitter(lambda: 0.0))
    places = queue.admit(requests(6))
    queue.put_admitted(job(1, is_bulk=True), places, 0)
    with pytest.raises(QueueFullError, match="retry in 6 s") as refused:
        queue.admit(requests(3))
    assert refused.value.retry_after_s == 6


async def test_an_idle_lane_refuses_none_whatever_it_expects() -> None:
    queue: JobQueue[AnyJob] = JobQueue(8, Proportional())
    places = queue.admit(requests(8, deadline_s=1.0))
    queue.give_up(places)
    queue.admit(requests(1, deadline_s=1.0))
    with pytest.raises(OverloadedError):
        queue.admit(requests(7, deadline_s=1.0))


async def test_batches_that_were_overtaken_make_admission_of_batches_stricter_and_of_nothing_else() -> None:
    queue: JobQueue[AnyJob] = JobQueue(8, Proportional())
    places = queue.admit(requests(4, deadline_s=10.0))
    for number in range(4):
        queue.put_admitted(job(1, is_bulk=True), places, number)
    batch = queue.take(BUDGET, waits=False) or []
    for each in batch:
        each.submitted_at -= 60.0
    queue.mark_done(batch)
    queue.put(job(1))

    with pytest.raises(OverloadedError):
        queue.admit(requests(4, deadline_s=10.0))
    queue.check(time.monotonic() + 4.0, requests(1)[0].load)


async def test_after_the_end_nothing_is_admitted_and_places_are_void() -> None:
    queue = new_queue()
    places = queue.admit(requests(3))
    queue.put_admitted(waiting := job(1, is_bulk=True), places, 0)

    assert queue.close() == [waiting]
    with pytest.raises(DrainingError):
        queue.put_admitted(job(1, is_bulk=True), places, 1)
    with pytest.raises(DrainingError):
        queue.admit(requests(1))


def test_calls_are_short_while_others_come_alone() -> None:
    now = [0.0]
    bulk: BulkJobs[AnyJob] = BulkJobs(8, lambda: now[0])
    assert bulk.longest_s(0.001) == CALL_S
    bulk.note_alone()
    assert bulk.longest_s(0.001) == pytest.approx(0.00125)
    now[0] = COMPANY_S + 0.1
    assert bulk.longest_s(0.001) == CALL_S
    assert bulk.longest_s(1.0) == pytest.approx(1.25)
