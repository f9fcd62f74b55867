"""Limits that all workers share: counted in the engine process."""

from __future__ import annotations

import asyncio
import itertools

from service.channel.channel import Channel
from service.channel.messages import Count, Counted
from service.errors import RateLimitedError


class WorkerCounts:
    """Asks the engine process to count, one short message for each request."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Counted]] = {}

    async def check(self, client: str, num_requests: int = 1) -> None:
        """Count a client's requests. Raises RateLimitedError."""
        await self._count(client, num_requests, None)

    async def spend(self, key_id: str, quota: str, num_tokens: int) -> None:
        """Count tokens against a key's quota. Raises RateLimitedError."""
        await self._count(key_id, num_tokens, quota)

    def give_back(self, key_id: str, quota: str, num_tokens: int) -> None:
        """Undo `spend`."""
        self._channel.send(Count(next(self._numbers), key_id, -num_tokens, quota))

    def handle(self, message: Counted) -> None:
        """The engine process's answer."""
        asked = self._asked.pop(message.request, None)
        if asked is not None and not asked.done():
            asked.set_result(message)

    async def _count(self, name: str, cost: int, quota: str | None) -> None:
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send(Count(number, name, cost, quota))
        try:
            counted = await asked
        finally:
            self._asked.pop(number, None)
        if counted.error is not None:
            raise RateLimitedError(counted.error, retry_after_s=counted.retry_after_s)
