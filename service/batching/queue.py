"""A bounded queue of jobs, from which batches are taken within a budget of padded tokens."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.batching.correction import Corrections
from service.batching.forecast import Forecast, RetryJitter
from service.batching.holds import Holds
from service.batching.job import AnyJob, ExpectedLoad, Load
from service.batching.loop_lag import LoopLag
from service.batching.shares import NOBODY, Client, Shares
from service.errors import DrainingError, OverloadedError, QueueFullError, ServiceError

J = TypeVar("J", bound=AnyJob)

LOOP_PASSES = 3
"""About how often a request waits for the event loop between its admission and its answer."""

BATCH_SHARE = 0.2
"""Longest duration of a batch, as a share of the shortest time budget of its jobs."""

BURST_GROWTH = 1.6
"""Longest duration of a batch relative to its first job alone, during one client's burst: others wait for the batch."""

HEADROOM = 0.35
"""Share of a job's time budget that must be left at its admission: later jobs lengthen its batch, and forecasts err."""

LEAST = ExpectedLoad(num_rows=1, longest=1, size=1, max_steps=1)
"""A job that is refused only if any would be."""


def _any_may(_joining: Sequence[AnyJob], _job: AnyJob) -> bool:
    return True


def _is_in_time(completion_s: float, allowed_s: float) -> bool:
    return completion_s == 0 or completion_s <= allowed_s * (1 - HEADROOM)


def _place(job: AnyJob) -> tuple[bool, float]:
    return job.is_patient, job.place


@dataclass(frozen=True)
class BatchBudget:
    """Limits of one batch. The oldest job is taken even if it exceeds the tokens, unless no row is free."""

    max_rows: int
    max_tokens: int

    def allows(self, num_rows: int, longest: int) -> bool:
        """Whether this many rows, padded to `longest` tokens, are within the limits."""
        return num_rows <= self.max_rows and num_rows * longest <= self.max_tokens

    def num_batches(self, num_rows: int, longest: int) -> int:
        """Number of batches for this many rows, padded to `longest` tokens."""
        return math.ceil(num_rows / max(1, min(self.max_rows, self.max_tokens // longest)))


class JobQueue(Generic[J]):
    """Jobs of one client run first in, first out; several clients get fair shares. Patient jobs run after all others.

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
        self._holds = Holds()
        self._shares = Shares()
        self._jobs: list[J] = []  # by place
        self._in_flight: list[J] = []
        self._is_closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

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
            forecast_s = self._forecast.completion_s(self._ahead(client, LEAST.size), LEAST)
            return self._corrected(client, forecast_s), len(self._jobs), not self._has_room_for(client)

    def check(self, deadline: float, load: Load | None = None, client: Client = NOBODY) -> None:
        """Reject a request before it is planned, if `put` would reject a job of this load. Raises as `put`.

        Without a load, only those are rejected for which there is no time even if they were no work.
        """
        with self._changed:
            self._check_room(client)
            ahead = self._ahead(client, 0 if load is None else load.size)
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
            ahead = self._ahead(job.client, job.size, is_patient=is_patient)
            forecast_s = self._forecast.completion_s(ahead, job)
            self._check_deadline(job.deadline, job.client, forecast_s, is_patient=is_patient)
            job.forecast_s = 0.0 if is_patient else forecast_s  # later jobs overtake a patient one
            if len(self._jobs) >= self._max_waiting:
                self._give_up_one()
            self._insert(job)
            if wakes:
                self._changed.notify()

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
            self._jobs[:0] = jobs

    def mark_done(self, jobs: Sequence[J]) -> None:
        """The jobs have left the engine."""
        with self._changed:
            self._record_durations(jobs)
            self._remove_in_flight(jobs)

    def take(
        self, budget: BatchBudget, *, waits: bool = True, may_join: Callable[[Sequence[J], J], bool] = _any_may
    ) -> list[J] | None:
        """The next batch: jobs of one group within the budget; None once the queue is closed and empty.

        With `waits` false, returns an empty list if no job is waiting or fits. Jobs that may not join those before them
        in the batch are passed over.
        """
        with self._changed:
            while True:
                self._drop_expired()
                batch = self._take_batch(budget, may_join)
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
            left, self._jobs = self._jobs, []
            self._changed.notify_all()
            return left

    def _check_open(self) -> None:
        if self._is_closed:
            raise DrainingError("the service is shutting down; retry on another replica", retry_after_s=1)

    def _insert(self, job: J) -> None:
        job.place = self._shares.take(job.client, job.size)
        insort(self._jobs, job, key=_place)

    def _ahead(self, client: Client, size: int, *, is_patient: bool = False) -> list[J]:
        """Waiting jobs that run before a new one of this size."""
        place = is_patient, self._shares.place(client, size)
        return self._jobs[: bisect_right(self._jobs, place, key=_place)]

    def _largest_backlog(self) -> tuple[str, int]:
        """The client with the most waiting jobs, and their number."""
        ((name, num_jobs),) = Counter(job.client.name for job in self._jobs).most_common(1)
        return name, num_jobs

    def _is_burst(self) -> bool:
        """Whether one of several recent clients has most of the waiting jobs."""
        return self._shares.is_shared and self._largest_backlog()[1] > len(self._jobs) / 2

    def _give_up_one(self) -> None:
        """Reject a patient job, or else the last job of the client with the most, to make room for another's."""
        if self._jobs[-1].is_patient:
            retry_after_s = self._jitter.retry_after_s(self._completion_s())
            reason = f"the queue is full, and others go first; retry in {retry_after_s} s"
            self._jobs.pop().fail(QueueFullError(reason, retry_after_s=retry_after_s))
            return
        name, num_jobs = self._largest_backlog()
        last = max(place for place, job in enumerate(self._jobs) if job.client.name == name)
        retry_after_s = self._jitter.retry_after_s(self._completion_s())
        self._jobs.pop(last).fail(
            QueueFullError(
                f"{num_jobs} of your requests are waiting while others have none; retry in {retry_after_s} s",
                retry_after_s=retry_after_s,
            )
        )

    def _check_room(self, client: Client, *, is_patient: bool = False) -> None:
        self._check_open()
        if len(self._jobs) >= self._max_waiting:
            self._drop_expired()
        if not self._has_room_for(client, is_patient=is_patient):
            num_waiting, completion_s = len(self._jobs), self._completion_s()

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
        if len(self._jobs) < self._max_waiting:
            return True
        if is_patient or not self._jobs:
            return False
        own = sum(job.client.name == client.name for job in self._jobs)
        return self._jobs[-1].is_patient or self._largest_backlog()[1] >= own + 2

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

        least_s = self._corrected(client, self._forecast.completion_s(self._ahead(client, LEAST.size), LEAST))
        if not is_patient and not _is_in_time(least_s, allowed_s):
            self._holds.note(client.name, least_s / (1 - HEADROOM), least_s, refusal)
        raise refusal(allowed_s)

    def _corrected(self, client: Client, forecast_s: float) -> float:
        return self._corrections.value(client.name) * forecast_s + LOOP_PASSES * self._loop_lag.seconds

    def _completion_s(self) -> float:
        return self._corrections.mean * self._forecast.completion_s([job for job in self._jobs if not job.is_patient])

    def _record_durations(self, jobs: Sequence[J]) -> None:
        now = time.monotonic()
        for job in jobs:
            if job.forecast_s:
                self._corrections.record(job.client.name, job.forecast_s, now - job.submitted_at)

    def _remove_in_flight(self, jobs: Sequence[J]) -> None:
        removed = set(map(id, jobs))
        self._in_flight = [job for job in self._in_flight if id(job) not in removed]

    def _drop_expired(self) -> None:
        self._record_durations([job for job in self._jobs if job.is_late])
        self._jobs = [job for job in self._jobs if not job.is_expired]

    def _longest_s(self, head: J) -> float:
        """Longest duration of the batch of this job."""
        if not self._is_burst():
            return math.inf
        alone_s = self._forecast.batch_s(head.size)
        return 0.0 if math.isinf(alone_s) else BURST_GROWTH * alone_s

    def _take_batch(self, budget: BatchBudget, may_join: Callable[[Sequence[J], J], bool]) -> list[J]:
        """The first job that may join, then jobs of its group in order until one does not fit."""
        head = next((job for job in self._jobs if may_join((), job)), None) if budget.max_rows else None
        if head is None:
            return []
        batch, num_rows, longest = [head], head.num_rows, head.longest
        size, shortest_s = head.size, head.time_budget_s
        longest_s = self._longest_s(head)
        for job in self._jobs:
            if job is head or job.group != head.group or not may_join(batch, job):
                continue
            num_rows, longest = num_rows + job.num_rows, max(longest, job.longest)
            size, shortest_s = size + job.size, min(shortest_s, job.time_budget_s)
            if not budget.allows(num_rows, longest):
                break
            if self._forecast.batch_s(size) > min(BATCH_SHARE * shortest_s, longest_s):
                break
            batch.append(job)
        for job in batch:
            self._shares.start(job.client, job.size, job.place)
        taken = set(map(id, batch))
        self._jobs = [job for job in self._jobs if id(job) not in taken]
        if not self._jobs:
            self._shares.rest()
        return batch
