"""Recent refusals, which let further requests of the same clients be refused at almost no cost.

A refusal depends on all waiting jobs, and takes the time to look at them. It holds for a moment for all requests of the
client that would be refused just so: with no more work, and with no longer deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from service.errors import ServiceError

HOLD_S = 0.05
"""Longest time for which a refusal holds."""
HOLD_SHARE = 0.25
"""The same as a share of the forecast that it is due to: the lane must not run out of work meanwhile."""
MAX_HOLDS = 1_000


Refusal: TypeAlias = Callable[[float], ServiceError]
"""Makes the error, for so many seconds until the deadline: each has a random time of its own to retry after."""


@dataclass(frozen=True)
class Hold:
    """Why a client's requests are refused for now."""

    deadline_s: float
    """Requests with less time until their deadline would be refused."""
    until: float
    refusal: Refusal


class Holds:
    """The last refusal of each client."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    def note(self, name: str, deadline_s: float, completion_s: float, refusal: Refusal) -> None:
        """A request of this client was refused though it had no work, because of this forecast."""
        now = time.monotonic()
        if len(self._holds) >= MAX_HOLDS:
            self._holds = {each: hold for each, hold in self._holds.items() if hold.until > now}
        if len(self._holds) < MAX_HOLDS or name in self._holds:
            self._holds[name] = Hold(deadline_s, now + min(HOLD_S, HOLD_SHARE * completion_s), refusal)

    def find(self, name: str, deadline_s: float) -> ServiceError | None:
        """Why a request with so much time left until its deadline is refused; None if that is to be found out."""
        hold = self._holds.get(name)
        if hold is None or deadline_s >= hold.deadline_s or time.monotonic() >= hold.until:
            return None
        return hold.refusal(deadline_s)
