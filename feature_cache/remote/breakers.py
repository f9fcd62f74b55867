"""A circuit breaker for each node of a Redis, so that a node that is ill costs no request its time.

Requests stop asking a node after a few failures in a row. They never probe: whoever watches Redis does, and the first
probe that is answered in time closes the circuit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from purgatory import AsyncCircuitBreakerFactory
from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker

FAILURES_TO_OPEN = 5

# The library would wait by the wall clock, which may jump. The watcher decides when to probe, so it waits for nothing.
_PROBE_AT_ONCE = float("-inf")


class Breakers:
    """By the name of a node."""

    def __init__(self) -> None:
        # A request that its client gave up says nothing about the node.
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
        """Count how the block ends. Around a probe of an open circuit, its end decides over the state."""
        breaker = self._breakers.get(node)
        if breaker is None:
            breaker = self._breakers[node] = await self._factory.get_breaker(node)
        async with breaker:
            yield
