"""A bounded queue of jobs, out of which batches are taken by padded-token budget."""

from __future__ import annotations

import math
import threading
from typing import Any, TypeAlias

from service.batching.job import Job
from service.errors import DrainingError, QueueFullError
from service.settings import QueueLimits

AnyJob: TypeAlias = Job[Any, Any]

LONGEST_RETRY_S = 60


class DrainRate:
    """How fast jobs leave the queue: a moving average of the seconds that a job costs."""

    def __init__(self, weight: float = 0.2) -> None:
        self._weight = weight
        self._seconds_per_job: float | None = None

    def record(self, num_jobs: int, duration_s: float) -> None:
        sample = duration_s / num_jobs
        average = self._seconds_per_job
        self._seconds_per_job = sample if average is None else average + self._weight * (sample - average)

    def retry_after_s(self, num_waiting: int) -> int:
        """Whole seconds until `num_waiting` jobs are done, at least one and at most a minute."""
        if self._seconds_per_job is None:
            return 1
        return min(max(math.ceil(num_waiting * self._seconds_per_job), 1), LONGEST_RETRY_S)


class JobQueue:
    """First in, first out; the dead make room first. Every method may be called from any thread."""

    def __init__(self, limits: QueueLimits, drain_rate: DrainRate) -> None:
        self._limits = limits
        self._drain_rate = drain_rate
        self._jobs: list[AnyJob] = []
        self._is_closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: AnyJob) -> None:
        """Raises QueueFullError, which says when to try again, or DrainingError after close()."""
        with self._changed:
            if self._is_closed:
                raise DrainingError("the service is about to end; send the request to another replica", retry_after_s=1)
            if len(self._jobs) >= self._limits.max_waiting:
                self._drop_dead()
            if len(self._jobs) >= self._limits.max_waiting:
                retry_after_s = self._drain_rate.retry_after_s(len(self._jobs))
                raise QueueFullError(
                    f"{len(self._jobs)} requests are waiting, the limit is {self._limits.max_waiting}; try again in"
                    f" {retry_after_s} s",
                    retry_after_s=retry_after_s,
                )
            self._jobs.append(job)
            self._changed.notify()

    def take(self) -> list[AnyJob] | None:
        """Wait for the next batch: jobs of one engine method that fit the budget; None after close()."""
        with self._changed:
            while True:
                self._drop_dead()
                if self._is_closed:
                    return None
                if self._jobs:
                    return self._take_batch()
                self._changed.wait()

    def close(self) -> list[AnyJob]:
        """Refuse new jobs and wake the taker; returns the jobs that will not be run."""
        with self._changed:
            self._is_closed = True
            left, self._jobs = self._jobs, []
            self._changed.notify_all()
            return left

    def _drop_dead(self) -> None:
        self._jobs = [job for job in self._jobs if not job.is_dead]

    def _take_batch(self) -> list[AnyJob]:
        """The oldest job always, then those of its method, in order, until one does not fit."""
        head = self._jobs[0]
        batch, num_rows, longest = [head], len(head.rows), head.longest
        for job in self._jobs[1:]:
            if job.call != head.call:
                continue
            num_rows, longest = num_rows + len(job.rows), max(longest, job.longest)
            if num_rows > self._limits.max_batch_rows or num_rows * longest > self._limits.max_batch_tokens:
                break
            batch.append(job)
        taken = set(map(id, batch))
        self._jobs = [job for job in self._jobs if id(job) not in taken]
        return batch
