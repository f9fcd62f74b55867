"""A bounded queue of jobs, out of which batches are taken by padded-token budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.batching.correction import Correction
from service.batching.forecast import Forecast, Spread
from service.batching.job import AnyJob
from service.batching.loop_lag import LoopLag
from service.errors import DrainingError, OverloadedError, QueueFullError

J = TypeVar("J", bound=AnyJob)

LOOP_PASSES = 3
"""How often a request waits for the event loop between its admission and its answer, roughly."""

BATCH_SHARE = 0.2
"""Of what its most impatient job allows in all, the most that a batch is to last."""

HEADROOM = 0.35
"""Of what a job allows, what must be left over when it is admitted: those who come later lengthen its batch, and
estimates err."""


@dataclass(frozen=True)
class Room:
    """How much one batch may take; the oldest job is taken whatever its tokens, if its rows fit."""

    max_rows: int
    max_tokens: int

    def holds(self, num_rows: int, longest: int) -> bool:
        """Whether rows fit that are padded to `longest` tokens."""
        return num_rows <= self.max_rows and num_rows * longest <= self.max_tokens


class JobQueue(Generic[J]):
    """First in, first out; the dead make room first. Every method may be called from any thread."""

    def __init__(
        self, max_waiting: int, forecast: Forecast, loop_lag: LoopLag | None = None, spread: Spread | None = None
    ) -> None:
        self._max_waiting = max_waiting
        self._forecast = forecast
        self._loop_lag = loop_lag or LoopLag()
        self._spread = spread or Spread()
        self._correction = Correction()
        self._jobs: list[J] = []
        self._taken: list[J] = []
        self._is_closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def taken(self) -> tuple[J, ...]:
        """Jobs that were taken and not yet let go of."""
        with self._changed:
            return tuple(self._taken)

    def completion_s(self) -> float:
        """Seconds until all that waits now is done, as far as is known."""
        with self._changed:
            return self._completion_s()

    def check(self, deadline: float) -> None:
        """Refuse as early as possible what `put` would refuse whatever it is; raises what `put` raises."""
        with self._changed:
            self._check_room()
            self._check_deadline(deadline, self._completion_s())

    def put(self, job: J) -> None:
        """Raises QueueFullError or OverloadedError, which say when to try again, or DrainingError after close()."""
        with self._changed:
            self._check_room()
            job.forecast_s = self._forecast.completion_s(self._jobs, job)
            self._check_deadline(job.deadline, self._correction.factor * job.forecast_s)
            self._jobs.append(job)
            self._changed.notify()

    def put_again(self, job: J) -> None:
        """Queue further work of a request that was admitted before: neither fullness nor its deadline refuses it."""
        with self._changed:
            self._check_open()
            self._jobs.append(job)
            self._changed.notify()

    def put_back(self, jobs: Sequence[J]) -> None:
        """Return jobs that were taken to the front; after close() they stay with the taker's next take()."""
        with self._changed:
            self._let_go(jobs)
            self._jobs[:0] = jobs

    def let_go(self, jobs: Sequence[J]) -> None:
        """The taker is done with these."""
        with self._changed:
            self._note(jobs)
            self._let_go(jobs)

    def _let_go(self, jobs: Sequence[J]) -> None:
        done = set(map(id, jobs))
        self._taken = [job for job in self._taken if id(job) not in done]

    def take(self, room: Room, *, waits: bool = True) -> list[J] | None:
        """The next batch: jobs of one group that fit; None after close() and when nothing is left.

        Without waiting, an empty list where nothing fits or is there.
        """
        with self._changed:
            while True:
                self._drop_dead()
                batch = self._take_batch(room)
                self._taken += batch
                if batch or (not waits and not self._is_closed):
                    return batch
                if self._is_closed:
                    return None
                self._changed.wait()

    def close(self) -> list[J]:
        """Refuse new jobs and wake the taker; returns the jobs that will not be run."""
        with self._changed:
            self._is_closed = True
            left, self._jobs = self._jobs, []
            self._changed.notify_all()
            return left

    def _check_open(self) -> None:
        if self._is_closed:
            raise DrainingError("the service is about to end; send the request to another replica", retry_after_s=1)

    def _check_room(self) -> None:
        self._check_open()
        if len(self._jobs) >= self._max_waiting:
            self._drop_dead()
        if len(self._jobs) >= self._max_waiting:
            retry_after_s = self._spread.retry_after_s(self._completion_s())
            raise QueueFullError(
                f"{len(self._jobs)} requests are waiting, the limit is {self._max_waiting}; try again in"
                f" {retry_after_s} s",
                retry_after_s=retry_after_s,
            )

    def _check_deadline(self, deadline: float, completion_s: float) -> None:
        allowed_s = deadline - time.monotonic()
        completion_s += LOOP_PASSES * self._loop_lag.seconds
        if completion_s <= allowed_s * (1 - HEADROOM) or completion_s == 0:
            return
        retry_after_s = self._spread.retry_after_s(completion_s - allowed_s * (1 - HEADROOM))
        raise OverloadedError(
            f"the answer would be there in about {completion_s:.2f} s, the deadline is in {max(allowed_s, 0):.2f} s; "
            f"try again in {retry_after_s} s, or allow a longer deadline_ms",
            retry_after_s=retry_after_s,
        )

    def _completion_s(self) -> float:
        """The forecast, as far as it was right of late."""
        return self._correction.factor * self._forecast.completion_s(self._jobs)

    def _note(self, jobs: Sequence[J]) -> None:
        now = time.monotonic()
        for job in jobs:
            if job.forecast_s:
                self._correction.note(job.forecast_s, now - job.submitted_at)

    def _drop_dead(self) -> None:
        self._note([job for job in self._jobs if job.is_late])
        self._jobs = [job for job in self._jobs if not job.is_dead]

    def _take_batch(self, room: Room) -> list[J]:
        """The oldest job always, then those of its group, in order, until one does not fit."""
        if not self._jobs or not room.max_rows:
            return []
        head = self._jobs[0]
        batch, num_rows, longest = [head], head.num_rows, head.longest
        size, patience_s = head.size, head.allowance_s
        for job in self._jobs[1:]:
            if job.group != head.group:
                continue
            num_rows, longest = num_rows + job.num_rows, max(longest, job.longest)
            size, patience_s = size + job.size, min(patience_s, job.allowance_s)
            if not room.holds(num_rows, longest):
                break
            if self._forecast.batch_s(size) > BATCH_SHARE * patience_s:
                break
            batch.append(job)
        taken = set(map(id, batch))
        self._jobs = [job for job in self._jobs if id(job) not in taken]
        return batch
