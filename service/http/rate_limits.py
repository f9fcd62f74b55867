"""Rate limits per client and quotas per key, counted in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import LoadTooLargeError, RateLimitedError
from service.http.api_keys import ApiKey
from service.http.app_state import AppState, state_of
from service.http.identity import client_identity
from service.observability.trace import RequestTrace
from service.problem_documents import WORKED_FOR

SCOPE = "requests"
QUOTA_SCOPE = "tokens"


class RateLimits:
    """Sliding-window limits per client."""

    def __init__(self, limits: str) -> None:
        """`limits` such as "100/second" or "100/second;2000/minute"."""
        self._items = parse_many(limits)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, client: str, num_requests: int = 1) -> None:
        """Count a client's requests. Raises RateLimitedError if they exceed a limit; none is counted then."""
        refused = _count(self._limiter, self._items, SCOPE, client, num_requests)
        if refused is not None:
            raise RateLimitedError(
                f"the client exceeded its rate limit of {refused.limit}; retry in {refused.retry_after_s} s",
                retry_after_s=refused.retry_after_s,
            )

    def require_possible(self, num_requests: int) -> None:
        """Raises LoadTooLargeError if a limit never allows so many at once."""
        for limit in self._items:
            if num_requests > limit.amount:
                raise LoadTooLargeError(
                    f"the body has {num_requests} requests, and the rate limit is {limit}; send at most {limit.amount}"
                )


class Quotas:
    """Limits on the work of each key, in tokens."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def charge(self, key: ApiKey, num_tokens: int) -> None:
        """Count a request's tokens. Raises RateLimitedError if they exceed the key's quota, and counts none then."""
        self.spend(key.id, key.quota or "", num_tokens)

    def spend(self, key_id: str, quota: str, num_tokens: int) -> None:
        """`charge` for a key of this id and quota."""
        refused = _count(self._limiter, parse_many(quota), QUOTA_SCOPE, key_id, num_tokens)
        if refused is not None:
            raise RateLimitedError(
                f"the request costs about {num_tokens} tokens, and the key {key_id!r} has {refused.left} left of its "
                f"quota of {refused.limit}; retry in {refused.retry_after_s} s, or send less",
                retry_after_s=refused.retry_after_s,
            )

    def give_back(self, key_id: str, quota: str, num_tokens: int) -> None:
        """Undo a charge; what has left the window meanwhile is not given twice."""
        for limit in parse_many(quota):
            used = limit.amount - self._limiter.get_window_stats(limit, QUOTA_SCOPE, key_id).remaining
            self._limiter.hit(limit, QUOTA_SCOPE, key_id, cost=-min(num_tokens, used))


class SharedCounts(Protocol):
    """Counts against limits that several processes share."""

    async def check(self, client: str, num_requests: int = 1) -> None:
        """As `RateLimits.check`."""
        ...

    async def spend(self, key_id: str, quota: str, num_tokens: int) -> None:
        """As `Quotas.spend`."""
        ...

    def give_back(self, key_id: str, quota: str, num_tokens: int) -> None:
        """As `Quotas.give_back`."""
        ...


class Charge:
    """What one request has counted against its key's quota; given back at its end if no work was done for it."""

    def __init__(self, quotas: Quotas | SharedCounts, key: ApiKey, trace: RequestTrace) -> None:
        self._quotas = quotas
        self._key_id, self._quota = key.id, key.quota or ""
        self._trace = trace
        self._num_tokens = 0

    @classmethod
    def open(cls, state: AppState, key: ApiKey, trace: RequestTrace) -> Charge:
        """The charge of a request, which is settled at its end."""
        charge = cls(state.shared_counts or state.quotas, key, trace)
        trace.hold(charge.settled())
        return charge

    async def take(self, num_tokens: int) -> None:
        """Raises RateLimitedError."""
        if isinstance(self._quotas, Quotas):
            self._quotas.spend(self._key_id, self._quota, num_tokens)
        else:
            await self._quotas.spend(self._key_id, self._quota, num_tokens)
        self._num_tokens += num_tokens

    async def take_for_many(self, num_tokens: int) -> None:
        """As `take`. Raises LoadTooLargeError if the quota never allows so many."""
        _require_possible(self._key_id, self._quota, num_tokens)
        await self.take(num_tokens)

    def give_back(self, num_tokens: int) -> None:
        """Undo a part of what was taken, for a request that no work was done for."""
        self._num_tokens -= num_tokens
        self._quotas.give_back(self._key_id, self._quota, num_tokens)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Give it back at the end of the block unless the request has been worked for."""
        try:
            yield
        finally:
            code = self._trace.error_code
            if self._num_tokens and code is not None and code not in WORKED_FOR:
                self._quotas.give_back(self._key_id, self._quota, self._num_tokens)


@dataclass(frozen=True)
class _Refused:
    """A limit that has no room, what it has left, and when to retry."""

    limit: RateLimitItem
    left: int
    retry_after_s: int


def _count(
    limiter: SlidingWindowCounterRateLimiter, limits: Sequence[RateLimitItem], scope: str, name: str, cost: int = 1
) -> _Refused | None:
    """Count against all limits; against none if one of them has no room."""
    for limit in limits:
        if not limiter.test(limit, scope, name, cost=cost):
            reset_time, left = limiter.get_window_stats(limit, scope, name)
            return _Refused(limit, left, max(1, math.ceil(reset_time - time.time())))
    for limit in limits:
        limiter.hit(limit, scope, name, cost=cost)
    return None


def _require_possible(key_id: str, quota: str, num_tokens: int) -> None:
    for limit in parse_many(quota):
        if num_tokens > limit.amount:
            raise LoadTooLargeError(
                f"the requests cost about {num_tokens} tokens, the quota of the key {key_id!r} is {limit}; send fewer"
            )


async def check_rate(request: Request) -> None:
    """Count the request, unless that was done before. Raises RateLimitedError."""
    if not getattr(request.state, "is_counted", False):
        await _check_rate(request, 1)


async def check_rate_of_others(request: Request, num_requests: int) -> None:
    """Count the further requests of a body with so many. Raises RateLimitedError and LoadTooLargeError."""
    limits = state_of(request.app).rate_limits
    if limits is not None:
        limits.require_possible(num_requests)
        if num_requests > 1:
            await _check_rate(request, num_requests - 1)


async def _check_rate(request: Request, num_requests: int) -> None:
    state = state_of(request.app)
    if state.rate_limits is None:
        return
    if state.shared_counts is None:
        state.rate_limits.check(client_identity(request), num_requests)
    else:
        await state.shared_counts.check(client_identity(request), num_requests)
