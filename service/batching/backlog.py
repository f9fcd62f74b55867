"""Waiting jobs in the order in which they run, with what is known of them together.

Whether a job is admitted depends on all that run before it, so their sums are kept: what is asked for at an admission
takes about as long for many waiting jobs as for few, unless several clients have many.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Generic, TypeVar

from service.batching.job import AnyJob
from service.batching.shares import Client, Shares
from service.batching.work import NO_WORK, Work

J = TypeVar("J", bound=AnyJob)

_LAST = (False, math.inf)
"""The place behind all that are not patient."""


class Backlog(Generic[J]):
    """Jobs that came alone, by place; patient ones are last and have shares of their own. Not thread-safe."""

    def __init__(self) -> None:
        self.jobs: list[J] = []
        self.shares = Shares()
        self.patient_shares = Shares()
        self._work = NO_WORK
        self._num_of: Counter[str] = Counter()  # by client, patient ones aside

    def __len__(self) -> int:
        return len(self.jobs)

    def shares_of(self, is_patient: bool) -> Shares:  # noqa: FBT001  # a key
        return self.patient_shares if is_patient else self.shares

    # What is asked

    def ahead(self, client: Client, size: int, *, is_patient: bool = False) -> Work:
        """What runs before a new job of this size."""
        return self._before((is_patient, self.shares_of(is_patient).place(client, size)))

    @property
    def work(self) -> Work:
        """Of all jobs that are not patient."""
        return self._before(_LAST)

    def num_of(self, client: Client) -> int:
        """Waiting jobs of a client, patient ones aside."""
        return self._num_of[client.name]

    @property
    def largest(self) -> int:
        """The most waiting jobs of one client, patient ones aside."""
        return max(self._num_of.values(), default=0)

    @property
    def bursting(self) -> str | None:
        """The one of several recent clients that has most of the waiting jobs, patient ones aside."""
        if not self.shares.is_shared:
            return None
        name, num_jobs = max(self._num_of.items(), key=itemgetter(1), default=("", 0))
        return name if 2 * num_jobs > self._num_of.total() else None

    def _before(self, place: tuple[bool, float]) -> Work:
        """The jobs before a place; adds up those before or behind it, whichever are fewer."""
        jobs = self.jobs
        if not jobs:
            return NO_WORK
        end = len(jobs) if place_of(jobs[-1]) <= place else bisect_right(jobs, place, key=place_of)
        if end <= len(jobs) // 2:
            return Work.of(jobs[:end])
        return self._work if end == len(jobs) else self._work.minus(Work.of(jobs[end:]))

    # What changes

    def insert(self, job: J) -> None:
        """Give a job its place."""
        job.place = self.shares_of(job.is_patient).take(job.client, job.size)
        if not self.jobs or place_of(self.jobs[-1]) <= place_of(job):
            self.jobs.append(job)
        else:
            insort(self.jobs, job, key=place_of)
        self._note_added(job)

    def put_back(self, jobs: Sequence[J]) -> None:
        """Jobs that were taken are the first again."""
        self.jobs[:0] = jobs
        for job in jobs:
            self._note_added(job)

    def remove(self, removed: Sequence[J]) -> None:
        """Remove jobs, which are there."""
        gone = set(map(id, removed))
        self.jobs = [job for job in self.jobs if id(job) not in gone]
        self._work = self._work.minus(Work.of(removed))
        for job in removed:
            if not job.is_patient:
                self._num_of[job.client.name] -= 1
                if not self._num_of[job.client.name]:
                    del self._num_of[job.client.name]

    def take(self, batch: Sequence[J]) -> None:
        """Remove jobs that run, which all are patient or none."""
        self.remove(batch)
        is_patient = batch[0].is_patient
        if not self.jobs or self.jobs[0].is_patient != is_patient:
            self.shares_of(is_patient).rest()

    def expired(self) -> list[J]:
        return expired_of(self.jobs)

    def last_of_largest(self) -> tuple[J, int]:
        """The last job of the client with the most, of several the first in the queue, and the number of its jobs."""
        jobs = [job for job in self.jobs if not job.is_patient]
        ((name, num_jobs),) = Counter(job.client.name for job in jobs).most_common(1)
        return next(job for job in reversed(jobs) if job.client.name == name), num_jobs

    def clear(self) -> list[J]:
        """Remove all; returns them."""
        jobs, self.jobs = self.jobs, []
        self._work = NO_WORK
        self._num_of.clear()
        return jobs

    def _note_added(self, job: J) -> None:
        self._work = self._work.with_one(job)
        if not job.is_patient:
            self._num_of[job.client.name] += 1


def expired_of(jobs: Sequence[J]) -> list[J]:
    """Those that were abandoned or whose deadline has passed."""
    now = time.monotonic()
    return [job for job in jobs if job.is_abandoned or job.deadline <= now]


def place_of(job: AnyJob) -> tuple[bool, float]:
    return job.is_patient, job.place
