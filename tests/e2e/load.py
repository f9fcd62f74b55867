"""A load generator that keeps asking for recommendations and remembers every answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE_S = 60.0
NUM_WORKERS = 3


@dataclass(frozen=True)
class Answer:
    """What one request got."""

    status: int
    body: dict[str, Any]
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def shortfall(self) -> str:
        """What the answer says about missing embeddings; empty if nothing."""
        found = [each["detail"] for each in self.body.get("degraded", ()) if each["kind"] == "missing_features"]
        return found[0] if found else ""

    @property
    def is_full(self) -> bool:
        return self.status == 200 and not self.shortfall


@dataclass
class Load:
    """Requests that are being sent; all answers so far."""

    client: httpx.AsyncClient
    answers: list[Answer] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, is_so: Callable[[Answer], bool]) -> Answer:
        """The first answer from now on that is so."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            num_seen = len(self.answers)
            while True:
                await self._news.wait()
                for answer in self.answers[num_seen:]:
                    if is_so(answer):
                        return answer
                num_seen = len(self.answers)

    async def more(self, number: int) -> None:
        """Wait for so many answers from now on."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            due = len(self.answers) + number
            await self._news.wait_for(lambda: len(self.answers) >= due)

    async def run(self, worker: int) -> None:
        for number in itertools.count(worker):
            # Every 11th item has no embedding anywhere.
            history = [f"item-{place}" for place in range(number % 90 + 1, number % 90 + 12) if place % 11]
            request = {"domain": "toys", "history": history, "k": 3}
            response = await self.client.post("/recommend/sequential", json=request)
            async with self._news:
                self.answers.append(Answer(response.status_code, response.json(), request))
                self._news.notify_all()


@asynccontextmanager
async def load_on(client: httpx.AsyncClient) -> AsyncIterator[Load]:
    load = Load(client)
    workers = [asyncio.create_task(load.run(number)) for number in range(NUM_WORKERS)]
    try:
        yield load
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
