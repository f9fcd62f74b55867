"""How many requests a client may send, counted in this process; who a client is."""

from __future__ import annotations

import math
import time

from fastapi import Request
from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError

SCOPE = "requests"


class RateLimits:
    """Limits that each client has for itself, over windows that slide."""

    def __init__(self, limits: str) -> None:
        """Limits such as "100/second" or "100/second;2000/minute"."""
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


def client_identity(request: Request) -> str:
    """The API key, where one was checked and left in the request's state, else the client's address."""
    key_id: str | None = getattr(request.state, "api_key_id", None)
    if key_id is not None:
        return f"key {key_id}"
    return f"address {request.client.host if request.client else 'unknown'}"
