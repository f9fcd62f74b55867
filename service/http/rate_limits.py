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

from model.errors import EngineError, Vip5Error
from service.errors import ClientDisconnectedError, DeadlineError, RateLimitedError
from service.http.api_keys import ApiKey
from service.http.app_state import AppState, state_of
from service.http.identity import client_identity
from service.observability.trace import RequestTrace

SCOPE = "requests"
QUOTA_SCOPE = "tokens"
WORKED_FOR = frozenset(kind.code for kind in (ClientDisconnectedError, DeadlineError, EngineError, Vip5Error))
"""Errors of requests that the engine may have worked for. Others are refusals, before the engine."""


class RateLimits:
    """Sliding-window limits per client."""

    def __init__(self, limits: str) -> None:
        """`limits` such as "100/second" or "100/second;2000/minute"."""
        self._items = parse_many(limits)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, client: str) -> None:
        """Count a client's request. Raises RateLimitedError if it exceeds a limit; it is not counted then."""
        refused = _count(self._limiter, self._items, SCOPE, client)
        if refused is not None:
            raise RateLimitedError(
                f"the client exceeded its rate limit of {refused.limit}; retry in {refused.retry_after_s} s",
                retry_after_s=refused.retry_after_s,
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

    async def check(self, client: str) -> None:
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


async def check_rate(request: Request) -> None:
    """Raises RateLimitedError."""
    state = state_of(request.app)
    if state.rate_limits is None:
        return
    if state.shared_counts is None:
        state.rate_limits.check(client_identity(request))
    else:
        await state.shared_counts.check(client_identity(request))
