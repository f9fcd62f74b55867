"""Random losses, starts, changes and foreign entries: no change that was answered is lost unnoticed or mixed in."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import pytest

from service.errors import JournalError, RevisionConflictError
from service.versions.journal import Kept
from service.versions.redis_journal import RedisJournal
from tests.e2e.journals import STREAM, copied, journal_of, put_back, served, toys
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry

NUM_STEPS = 60


class Trial:
    """Replicas of one service, and what each has answered."""

    def __init__(self, server: RedisServer, seed: int, stack: AsyncExitStack) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.stack = stack
        self.answered: dict[RedisJournal, set[str]] = {}
        self.copies: list[dict[bytes, bytes]] = [{}]
        self.num_items = 0

    async def start(self) -> None:
        journal = await self.stack.enter_async_context(journal_of(self.server, self.random.choice([2, 5, 1000])))
        await journal.open()
        self.answered[journal] = set()

    async def change(self) -> None:
        journal = self.random.choice(list(self.answered))
        self.num_items += 1
        item_id = f"item-{self.num_items}"
        try:
            await journal.append(stock_entry(toys(journal._followed.states).revision + 1, item_id))
        except (JournalError, RevisionConflictError):
            assert item_id not in served(journal)
        else:
            self.answered[journal].add(item_id)

    async def read(self) -> None:
        await self.try_to_read(self.random.choice(list(self.answered)))

    async def copy(self) -> None:
        self.copies.append(copied(self.server))

    async def lose(self) -> None:
        put_back(self.server, self.random.choice(self.copies))

    async def scribble(self) -> None:
        with self.server.client as client:
            client.xadd(STREAM, {"wrong": "field"})

    async def step(self) -> None:
        steps = [self.start, self.change, self.read, self.copy, self.lose, self.scribble]
        (chosen,) = self.random.choices(steps, weights=[2, 30, 30, 4, 4, 0.3])
        await chosen()
        self.check_answered()

    async def try_to_read(self, journal: RedisJournal) -> None:
        told = ""
        try:
            await journal.catch_up()
        except JournalError as error:
            told = str(error)
        assert not told or told == journal.problems[0]

    async def settle(self) -> None:
        """Every replica reads until nothing changes any more."""
        for _ in range(3):
            for journal in self.answered:
                await self.try_to_read(journal)
        self.check_answered()
        states = [served(journal) for journal in self.answered if not journal.is_broken]
        assert all(each == states[0] for each in states)

    def check_answered(self) -> None:
        for journal, answered in self.answered.items():
            assert answered <= served(journal)


@pytest.mark.parametrize("keep", ["served", "stored"])
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_to_redis(server: RedisServer, seed: int, keep: Kept) -> None:
    async with AsyncExitStack() as stack:
        trial = Trial(server, seed, stack)
        await trial.start()
        await trial.start()
        for _ in range(NUM_STEPS):
            await trial.step()
        await trial.settle()
        broken = [journal for journal in trial.answered if journal.is_broken]
        if broken:
            before = served(broken[0])
            await broken[0].resolve(keep)
            assert keep == "stored" or served(broken[0]) == before
            trial.answered = {journal: set() for journal in trial.answered}
            await trial.settle()
            assert not [journal for journal in trial.answered if journal.is_broken]
        await trial.start()
        await trial.settle()
