"""Rate limits per client, counted in this process."""

from __future__ import annotations

import math
import time

from fastapi import Request
from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError
from service.http.app_state import state_of

SCOPE = "requests"


class RateLimits:
    """Sliding-window limits per client."""

    def __init__(self, limits: str) -> None:
        """`limits` such as "100/second" or "100/second;2000/minute"."""
        self._items = parse_many(limits)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, client: str) -> None:
        """Count a client's request. Raises RateLimitedError if it exceeds a limit; it is not counted then."""
        for item in self._items:
            if not self._limiter.hit(item, SCOPE, client):
                reset_time, _ = self._limiter.get_window_stats(item, SCOPE, client)
                retry_after_s = max(1, math.ceil(reset_time - time.time()))
                raise RateLimitedError(
                    f"the client exceeded its rate limit of {item}; retry in {retry_after_s} s",
                    retry_after_s=retry_after_s,
                )


def check_rate(request: Request) -> None:
    """Raises RateLimitedError."""
    limits = state_of(request.app).rate_limits
    if limits is not None:
        limits.check(client_identity(request))


def client_identity(request: Request) -> str:
    """The API key's id if one was checked, else the client's address."""
    key_id: str | None = getattr(request.state, "api_key_id", None)
    if key_id is not None:
        return f"key {key_id}"
    return f"address {request.client.host if request.client else 'unknown'}"
