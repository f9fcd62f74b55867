"""Requests of bodies that hold many: admitted all or none, and run while no request that came alone waits.

They have room of their own, as much as all others together, so that none of them takes the place of a request that came
alone. A call of the engine for them is short while such requests come, since those wait for its end.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.batching.job import AnyJob, ExpectedLoad, Load
from service.batching.shares import Client, Shares
from service.errors import LoadTooLargeError

J = TypeVar("J", bound=AnyJob)

COMPANY_S = 2.0
"""How long after a request that came alone the engine's calls for others stay short."""
CALL_GROWTH = 1.25
"""Longest duration of a short call relative to its first job alone."""
CALL_S = 0.25
"""Longest duration of a call while no requests come alone, unless its first job alone takes longer."""


@dataclass(frozen=True)
class Request:
    """What is known of a request when it asks for a place: its load, and its deadline on time.monotonic's clock."""

    load: ExpectedLoad
    deadline: float


@dataclass(eq=False)
class Places:
    """Room in the queue for the requests of one body, by their numbers, until each is put or given up."""

    client: Client
    num_requests: int
    forecast_s: float
    """Of the last request, before correction."""
    held: dict[int, Load] = field(default_factory=dict)

    def forecast_of(self, number: int) -> float:
        """Of a request: they run in order."""
        return self.forecast_s * (number + 1) / self.num_requests


class BulkJobs(Generic[J]):
    """Waiting jobs of such requests, and places for those that are being planned. Not thread-safe."""

    def __init__(self, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs: list[J] = []  # by place
        self.shares = Shares()
        self._max_waiting = max_waiting
        self._clock = clock
        self._places: set[Places] = set()
        self._alone_at = -math.inf

    @property
    def num_held(self) -> int:
        """Waiting jobs and held places."""
        return len(self.jobs) + sum(len(each.held) for each in self._places)

    @property
    def held(self) -> list[Load]:
        """What held places are for."""
        return [load for each in self._places for load in each.held.values()]

    def note_alone(self) -> None:
        """A request came alone."""
        self._alone_at = self._clock()

    def has_room_for(self, num_requests: int) -> bool:
        """Whether so many requests may wait. Raises LoadTooLargeError if they never may."""
        if num_requests > self._max_waiting:
            raise LoadTooLargeError(
                f"the body has {num_requests} requests, and at most {self._max_waiting} can wait at once; "
                "send fewer in one body"
            )
        return self.num_held + num_requests <= self._max_waiting

    def hold(self, requests: Sequence[Request], client: Client, forecast_s: float) -> Places:
        """Places for requests that have been admitted, with the forecast for the last."""
        loads: dict[int, Load] = {number: each.load for number, each in enumerate(requests)}
        places = Places(client, len(requests), forecast_s, loads)
        self._places.add(places)
        return places

    def give_up(self, places: Places, numbers: Iterable[int]) -> None:
        """Free places that are still held."""
        for number in numbers:
            places.held.pop(number, None)
        if not places.held:
            self._places.discard(places)

    def insert(self, job: J) -> None:
        job.place = self.shares.take(job.client, job.size)
        insort(self.jobs, job, key=_place)

    def remove(self, removed: Iterable[J]) -> None:
        """Remove waiting jobs."""
        gone = set(map(id, removed))
        self.jobs = [job for job in self.jobs if id(job) not in gone]

    def ahead(self, client: Client, size: int) -> list[Load]:
        """Jobs that run before a new one of this size, and what may yet come before it."""
        jobs = self.jobs[: bisect_right(self.jobs, self.shares.place(client, size), key=_place)]
        return [*jobs, *self.held]

    def longest_s(self, alone_s: float) -> float:
        """Longest duration of a call whose first job alone takes `alone_s`."""
        short_s = CALL_GROWTH * alone_s
        return short_s if self._clock() - self._alone_at < COMPANY_S else max(short_s, CALL_S)


def last_of_each_deadline(requests: Sequence[Request]) -> list[int]:
    """The numbers of requests that decide whether all end in time: of each deadline, the last, as they run in order."""
    return sorted({each.deadline: number for number, each in enumerate(requests)}.values())


def _place(job: AnyJob) -> float:
    return job.place
