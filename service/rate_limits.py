"""How many requests a client may send, counted in this process.

Knows no web framework.
"""

from __future__ import annotations

import math
import time

from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError

SCOPE = "requests"


def check_form(limits: str) -> str:
    """Limits such as "100/second" or "100/second;2000/minute", as they were given. Raises ValueError."""
    try:
        parse_many(limits)
    except ValueError as error:
        raise ValueError(
            f"{limits!r} is not a rate limit; write a number and a span such as 100/second, several with ; between"
        ) from error
    return limits


class RateLimits:
    """Limits that each client has for itself, over windows that slide."""

    def __init__(self, limits: str) -> None:
        """Limits as `check_form` takes them."""
        self._items = parse_many(limits)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, client: str) -> None:
        """Count a request of a client. Raises RateLimitedError for one too many, which is not counted."""
        for item in self._items:
            if not self._limiter.hit(item, SCOPE, client):
                reset_time, _ = self._limiter.get_window_stats(item, SCOPE, client)
                retry_after_s = max(1, math.ceil(reset_time - time.time()))
                raise RateLimitedError(
                    f"a client may send {item} requests, and this one has; try again in {retry_after_s} s",
                    retry_after_s=retry_after_s,
                )
