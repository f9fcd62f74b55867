"""A circuit breaker per Redis node, so that requests do not wait for a node that is down.

Requests skip a node after a few failures in a row. They never probe it: the watcher does, and the first probe that is
answered in time closes the circuit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from purgatory import AsyncCircuitBreakerFactory
from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker

FAILURES_TO_OPEN = 5

# The watcher decides when to probe. The library's own waiting time runs on the wall clock, which may jump.
_PROBE_AT_ONCE = float("-inf")


class Breakers:
    """Circuit breakers by node name."""

    def __init__(self) -> None:
        # A request that its client has cancelled says nothing about the node.
        self._factory = AsyncCircuitBreakerFactory(
            default_threshold=FAILURES_TO_OPEN, default_ttl=_PROBE_AT_ONCE, exclude=[asyncio.CancelledError]
        )
        self._breakers: dict[str, AsyncCircuitBreaker] = {}

    def is_closed(self, node: str) -> bool:
        breaker = self._breakers.get(node)
        return breaker is None or breaker.context.state == "closed"

    def open_nodes(self) -> Iterator[str]:
        return (node for node in list(self._breakers) if not self.is_closed(node))

    @asynccontextmanager
    async def guard(self, node: str) -> AsyncIterator[None]:
        """Record whether the block succeeds. For a probe of an open circuit, that decides whether it closes."""
        breaker = self._breakers.get(node)
        if breaker is None:
            breaker = self._breakers[node] = await self._factory.get_breaker(node)
        async with breaker:
            yield
