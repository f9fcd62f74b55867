"""Rate limits per client and quotas per key, counted in this process."""

from __future__ import annotations

import math
import time

from fastapi import Request
from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import RateLimitedError
from service.http.api_keys import ApiKey
from service.http.app_state import state_of
from service.http.callers import client_identity

SCOPE = "requests"
QUOTA_SCOPE = "tokens"


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


class Quotas:
    """Limits on the work of each key, in tokens."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def charge(self, key: ApiKey, num_tokens: int) -> None:
        """Count a request's tokens. Raises RateLimitedError if they exceed the key's quota, and counts none then."""
        for item in parse_many(key.quota or ""):
            if not self._limiter.hit(item, QUOTA_SCOPE, key.id, cost=num_tokens):
                reset_time, left = self._limiter.get_window_stats(item, QUOTA_SCOPE, key.id)
                retry_after_s = max(1, math.ceil(reset_time - time.time()))
                raise RateLimitedError(
                    f"the request costs about {num_tokens} tokens, and the key {key.id!r} has {left} left of its quota "
                    f"of {item}; retry in {retry_after_s} s, or send less",
                    retry_after_s=retry_after_s,
                )


def check_rate(request: Request) -> None:
    """Raises RateLimitedError."""
    limits = state_of(request.app).rate_limits
    if limits is not None:
        limits.check(client_identity(request))
