"""Fair shares of a lane between clients: start-time fair queueing (Goyal, Vin and Cheng, 1996).

Every job gets a place on a virtual clock: behind its client's earlier jobs by its size divided by the client's weight,
but not before the clock. The clock follows the jobs that start. So clients that wait at once get work in proportion to
their weights, however many jobs each has, and jobs of one client keep their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

ACTIVE_S = 5.0
"""Clients that came this recently share the lane."""


@dataclass(frozen=True)
class Client:
    """Who a job is for, and the weight of its share."""

    name: str = ""
    weight: float = 1.0


NOBODY = Client()


class Shares:
    """Places of jobs on the virtual clock. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._virtual = 0.0
        self._ends: dict[str, float] = {}  # place of each client's last job
        self._seen_at: dict[str, float] = {}

    @property
    def is_shared(self) -> bool:
        """Whether several clients have come recently."""
        return len(self._seen_at) > 1

    def place(self, client: Client, size: int) -> float:
        """The place that a job would get now; jobs run in the order of their places."""
        return max(self._virtual, self._ends.get(client.name, 0.0)) + size / client.weight

    def take(self, client: Client, size: int) -> float:
        """The place of a new job."""
        place = self._ends[client.name] = self.place(client, size)
        self._seen_at[client.name] = self._clock()
        self._forget()
        return place

    def start(self, client: Client, size: int, place: float) -> None:
        """A job starts."""
        self._virtual = max(self._virtual, place - size / client.weight)

    def rest(self) -> None:
        """No job waits: all claims end."""
        self._virtual = max(self._ends.values(), default=self._virtual)
        self._ends.clear()

    def _forget(self) -> None:
        """Clients that have not come for a while."""
        since = self._clock() - ACTIVE_S
        self._seen_at = {name: seen_at for name, seen_at in self._seen_at.items() if seen_at >= since}
