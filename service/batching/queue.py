"""A bounded queue of jobs, from which batches are taken within a budget of padded tokens."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from service.batching.backlog import Backlog, expired_of
from service.batching.bulk import BulkJobs, Places, Request, last_of_each_deadline
from service.batching.composition import BatchBudget, beside_burst, extended, within_budget
from service.batching.correction import Corrections
from service.batching.forecast import Forecast, RetryJitter
from service.batching.holds import Holds
from service.batching.job import AnyJob, ExpectedLoad, Load
from service.batching.loop_lag import LoopLag
from service.batching.shares import NOBODY, Client
from service.batching.work import NO_WORK, Work
from service.errors import DrainingError, OverloadedError, QueueFullError, ServiceError

J = TypeVar("J", bound=AnyJob)

LOOP_PASSES = 3
"""About how often a request waits for the event loop between its admission and its answer."""

HEADROOM = 0.35
"""Share of a job's time budget that must be left at its admission: later jobs lengthen its batch, and forecasts err."""

LEAST = ExpectedLoad(num_rows=1, longest=1, size=1, max_steps=1)
"""A job that is refused only if any would be."""


def _any_may(_joining: Sequence[AnyJob], _job: AnyJob) -> bool:
    return True


def _is_in_time(completion_s: float, allowed_s: float) -> bool:
    return completion_s == 0 or completion_s <= allowed_s * (1 - HEADROOM)


class JobQueue(Generic[J]):
    """Jobs of one client run first in, first out; several clients get fair shares. Patient jobs run after all others.

    Patient jobs have shares of their own, so that they cost their clients no place among the others. Jobs of bodies
    with many requests come after all of these, and have room and shares of their own (bulk.py).

    Expired jobs are dropped before a job is rejected. If the queue is full, the client with the most waiting jobs gives
    up its last one for a client with at least two fewer. All methods are thread-safe.
    """

    def __init__(
        self, max_waiting: int, forecast: Forecast, loop_lag: LoopLag | None = None, jitter: RetryJitter | None = None
    ) -> None:
        self._max_waiting = max_waiting
        self._forecast = forecast
        self._loop_lag = loop_lag or LoopLag()
        self._jitter = jitter or RetryJitter()
        self._corrections = Corrections()
        self._bulk_corrections = Corrections()  # also for requests that came alone, and overtook
        self._holds = Holds()
        self._backlog: Backlog[J] = Backlog()
        self._bulk: BulkJobs[J] = BulkJobs(max_waiting)
        self._in_flight: list[J] = []
        self._is_closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._backlog) + len(self._bulk.jobs)

    @property
    def in_flight(self) -> tuple[J, ...]:
        """Jobs between `take` and `mark_done`."""
        with self._changed:
            return tuple(self._in_flight)

    def completion_s(self) -> float:
        """Forecast seconds until all waiting jobs are done, except for patient ones."""
        with self._changed:
            return self._completion_s()

    def forecast_for(self, client: Client) -> tuple[float, int, bool]:
        """Forecast seconds until a client's smallest job is done, the number waiting, and whether it is refused."""
        with self._changed:
            forecast_s = self._forecast.completion_s(self._backlog.ahead(client, LEAST.size), LEAST)
            return self._corrected(client, forecast_s), len(self._backlog), not self._has_room_for(client)

    def check(self, deadline: float, load: Load | None = None, client: Client = NOBODY) -> None:
        """Reject a request before it is planned, if `put` would reject a job of this load. Raises as `put`.

        Without a load, only those are rejected for which there is no time even if they were no work.
        """
        with self._changed:
            self._check_room(client)
            ahead = self._backlog.ahead(client, 0 if load is None else load.size)
            self._check_deadline(deadline, client, self._forecast.completion_s(ahead, load))

    def recent_refusal(self, client: Client, deadline_s: float) -> ServiceError | None:
        """Why a request with so much time until its deadline would be refused, as one of this client just was.

        Costs almost nothing. None if that is not known. Called where requests are put.
        """
        return self._holds.find(client.name, deadline_s)

    def put(self, job: J, *, wakes: bool = True) -> None:
        """Raises QueueFullError or OverloadedError, which say when to retry, and DrainingError after close().

        Without `wakes`, a waiting `take` does not see the job before `wake` is called.
        """
        with self._changed:
            is_patient = job.is_patient
            self._check_room(job.client, is_patient=is_patient)
            ahead = self._backlog.ahead(job.client, job.size, is_patient=is_patient)
            forecast_s = self._forecast.completion_s(ahead, job)
            self._check_deadline(job.deadline, job.client, forecast_s, is_patient=is_patient)
            job.forecast_s = 0.0 if is_patient else forecast_s  # later jobs overtake a patient one
            self._bulk.note_alone()
            if len(self._backlog) >= self._max_waiting:
                self._give_up_one()
            self._insert(job)
            if wakes:
                self._changed.notify()

    def admit(self, requests: Sequence[Request], client: Client = NOBODY) -> Places:
        """Hold places for all requests of one body, in their order.

        Raises LoadTooLargeError, and as `put` does; nothing is held then.
        """
        with self._changed:
            self._check_open()
            self._drop_expired()
            self._check_bulk_room(len(requests))
            return self._bulk.hold(requests, client, self._check_bulk_deadlines(requests, client))

    def put_admitted(self, job: J, places: Places, number: int) -> None:
        """Put a job in its place. Raises DrainingError after close().

        As without `wakes`, a waiting `take` does not see it before `wake` is called.
        """
        with self._changed:
            self._bulk.give_up(places, (number,))
            self._check_open()
            job.forecast_s = places.forecast_of(number)
            self._bulk.insert(job)

    def give_up(self, places: Places, number: int | None = None) -> None:
        """Free the place of a request, or all that are still held; those that were put keep waiting."""
        with self._changed:
            self._bulk.give_up(places, list(places.held) if number is None else (number,))

    def wake(self) -> None:
        """Let a waiting `take` see what was put."""
        with self._changed:
            self._changed.notify()

    def put_continued(self, job: J) -> None:
        """Append a job that was admitted before and continues; it is not rejected for fullness or its deadline.

        Raises DrainingError after close().
        """
        with self._changed:
            self._check_open()
            self._insert(job)
            self._changed.notify()

    def return_to_front(self, jobs: Sequence[J]) -> None:
        """Undo `take` for jobs that could not start; the next `take` returns them, even after close()."""
        with self._changed:
            self._remove_in_flight(jobs)
            self._backlog.put_back(jobs)

    def mark_done(self, jobs: Sequence[J]) -> None:
        """The jobs have left the engine."""
        with self._changed:
            self._record_durations(jobs)
            self._remove_in_flight(jobs)

    def take(
        self,
        budget: BatchBudget,
        *,
        patient: BatchBudget | None = None,
        waits: bool = True,
        may_join: Callable[[Sequence[J], J], bool] = _any_may,
    ) -> list[J] | None:
        """The next batch: jobs of one group within the budget; None once the queue is closed and empty.

        `patient` is the budget of patient jobs, by default the same. With `waits` false, returns an empty list if no
        job is waiting or fits. Jobs that may not join those before them in the batch are passed over.
        """
        with self._changed:
            while True:
                self._drop_expired()
                batch = self._take_batch(budget, patient or budget, may_join)
                self._in_flight += batch
                if batch or (not waits and not self._is_closed):
                    return batch
                if self._is_closed:
                    return None
                self._changed.wait()

    def close(self) -> list[J]:
        """Reject new jobs and wake `take`; returns the waiting jobs, which will not run."""
        with self._changed:
            self._is_closed = True
            left = [*self._backlog.clear(), *self._bulk.jobs]
            self._bulk.jobs = []
            self._changed.notify_all()
            return left

    def _check_open(self) -> None:
        if self._is_closed:
            raise DrainingError("the service is shutting down; retry on another replica", retry_after_s=1)

    def _insert(self, job: J) -> None:
        if job.is_bulk:
            self._bulk.insert(job)
            return
        self._backlog.insert(job)

    def _give_up_one(self) -> None:
        """Reject a patient job, or else the last job of the client with the most, to make room for another's."""
        last = self._backlog.jobs[-1]
        retry_after_s = self._jitter.retry_after_s(self._completion_s())
        if last.is_patient:
            reason = f"the queue is full, and others go first; retry in {retry_after_s} s"
        else:
            last, num_jobs = self._backlog.last_of_largest()
            reason = f"{num_jobs} of your requests are waiting while others have none; retry in {retry_after_s} s"
        self._backlog.remove((last,))
        last.fail(QueueFullError(reason, retry_after_s=retry_after_s))

    def _check_room(self, client: Client, *, is_patient: bool = False) -> None:
        self._check_open()
        if len(self._backlog) >= self._max_waiting:
            self._drop_expired()
        if not self._has_room_for(client, is_patient=is_patient):
            num_waiting, completion_s = len(self._backlog), self._completion_s()

            def refusal(_: float) -> QueueFullError:
                retry_after_s = self._jitter.retry_after_s(completion_s)
                return QueueFullError(
                    f"{num_waiting} requests are waiting, the limit is {self._max_waiting}; retry in {retry_after_s} s",
                    retry_after_s=retry_after_s,
                )

            if not is_patient:  # others may have room that it has not
                self._holds.note(client.name, math.inf, completion_s, refusal)
            raise refusal(0.0)

    def _has_room_for(self, client: Client, *, is_patient: bool = False) -> bool:
        """Whether a job of this client may wait, if need be in the place of another's."""
        backlog = self._backlog
        if len(backlog) < self._max_waiting:
            return True
        if is_patient or not backlog.jobs:
            return False
        return backlog.jobs[-1].is_patient or backlog.largest >= backlog.num_of(client) + 2

    def _check_deadline(self, deadline: float, client: Client, forecast_s: float, *, is_patient: bool = False) -> None:
        allowed_s = deadline - time.monotonic()
        completion_s = self._corrected(client, forecast_s)
        if _is_in_time(completion_s, allowed_s):
            return

        def refusal(allowed_s: float) -> OverloadedError:
            retry_after_s = self._jitter.retry_after_s(completion_s - allowed_s * (1 - HEADROOM))
            return OverloadedError(
                f"the answer would take about {completion_s:.2f} s, the deadline is in {max(allowed_s, 0):.2f} s; "
                f"retry in {retry_after_s} s, or allow a longer deadline_ms",
                retry_after_s=retry_after_s,
            )

        least_s = self._corrected(client, self._forecast.completion_s(self._backlog.ahead(client, LEAST.size), LEAST))
        if not is_patient and not _is_in_time(least_s, allowed_s):
            self._holds.note(client.name, least_s / (1 - HEADROOM), least_s, refusal)
        raise refusal(allowed_s)

    def _check_bulk_room(self, num_requests: int) -> None:
        if self._bulk.has_room_for(num_requests):
            return
        waiting_s = self._forecast.completion_s(Work.of([*self._backlog.jobs, *self._bulk.jobs, *self._bulk.held]))
        retry_after_s = self._jitter.retry_after_s(self._bulk_corrections.mean * waiting_s)
        raise QueueFullError(
            f"{self._bulk.num_held} requests of batches are waiting, the limit is {self._max_waiting}, and the body "
            f"has {num_requests}; none of them was admitted: retry in {retry_after_s} s, or send fewer",
            retry_after_s=retry_after_s,
        )

    def _check_bulk_deadlines(self, requests: Sequence[Request], client: Client) -> float:
        """The forecast for the last request, before correction. Raises OverloadedError.

        An idle lane refuses none: to come later would not help, and only running them corrects a forecast.
        """
        is_idle = not (self._backlog.jobs or self._in_flight or self._bulk.num_held)
        forecast_s = 0.0
        ahead = Work.of([*self._backlog.jobs, *self._bulk.ahead(client, LEAST.size)])
        before, num_added = NO_WORK, 0
        for number in last_of_each_deadline(requests):
            before = before.plus(Work.of(each.load for each in requests[num_added:number]))
            num_added = number
            forecast_s = self._forecast.completion_s(ahead.plus(before), requests[number].load)
            completion_s = self._bulk_corrections.value(client.name) * forecast_s + LOOP_PASSES * self._loop_lag.seconds
            allowed_s = requests[number].deadline - time.monotonic()
            if not is_idle and not _is_in_time(completion_s, allowed_s):
                retry_after_s = self._jitter.retry_after_s(completion_s - allowed_s * (1 - HEADROOM))
                raise OverloadedError(
                    f"answering the first {number + 1} of the {len(requests)} requests would take about "
                    f"{completion_s:.2f} s, the deadline of the last of them is in {max(allowed_s, 0):.2f} s; none was "
                    f"admitted: retry in {retry_after_s} s, send fewer, or allow a longer deadline_ms",
                    retry_after_s=retry_after_s,
                )
        return forecast_s

    def _corrected(self, client: Client, forecast_s: float) -> float:
        return self._corrections.value(client.name) * forecast_s + LOOP_PASSES * self._loop_lag.seconds

    def _completion_s(self) -> float:
        return self._corrections.mean * self._forecast.completion_s(self._backlog.work)

    def _record_durations(self, jobs: Sequence[J]) -> None:
        now = time.monotonic()
        for job in jobs:
            if job.forecast_s:
                corrections = self._bulk_corrections if job.is_bulk else self._corrections
                corrections.record(job.client.name, job.forecast_s, now - job.submitted_at)

    def _remove_in_flight(self, jobs: Sequence[J]) -> None:
        removed = set(map(id, jobs))
        self._in_flight = [job for job in self._in_flight if id(job) not in removed]

    def _drop_expired(self) -> None:
        expired, of_bulk = self._backlog.expired(), expired_of(self._bulk.jobs)
        if expired:
            self._backlog.remove(expired)
        if of_bulk:
            self._bulk.remove(of_bulk)
        self._record_durations([job for job in (*expired, *of_bulk) if job.is_late])

    def _take_batch(
        self, budget: BatchBudget, patient: BatchBudget, may_join: Callable[[Sequence[J], J], bool]
    ) -> list[J]:
        """A batch of the waiting jobs, or else of those that give way to them."""
        if batch := self._batch_of(self._backlog.jobs, budget, patient, may_join):
            self._backlog.take(batch)
        elif batch := self._batch_of(self._bulk.jobs, budget, patient, may_join):
            self._bulk.remove(batch)
            if not self._bulk.num_held:
                self._bulk.shares.rest()
        return batch

    def _batch_of(
        self,
        jobs: Sequence[J],
        budget: BatchBudget,
        patient: BatchBudget,
        may_join: Callable[[Sequence[J], J], bool],
    ) -> list[J]:
        """A batch of the first job that may join, and others of its group."""
        head = next((job for job in jobs if may_join((), job)), None) if budget.max_rows else None
        if head is None:
            return []
        batch = within_budget(jobs, head, patient if head.is_patient else budget, may_join)
        shares = self._bulk.shares if head.is_bulk else self._backlog.shares_of(head.is_patient)
        if head.is_bulk:
            alone_s = self._forecast.batch_s(head.size)
            longest_s = self._bulk.longest_s(alone_s) if math.isfinite(alone_s) else 0.0
            batch = extended(batch[:1], batch[1:], self._forecast, longest_s)
        elif not head.is_patient:
            name = self._backlog.bursting
            batch = (
                extended(batch[:1], batch[1:], self._forecast)
                if name is None
                else beside_burst(batch, self._forecast, name)
            )
        for job in batch:
            shares.start(job.client, job.size, job.place)
        return batch
