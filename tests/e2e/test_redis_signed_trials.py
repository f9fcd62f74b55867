"""Somebody who can write to Redis does so at random: no replica serves what no holder of the secret appended."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from redis.exceptions import ResponseError

from feature_cache.signing import Signing
from service.errors import JournalError, RevisionConflictError
from service.versions.formats import encode_entry, encode_states
from service.versions.redis_journal import RedisJournal
from service.versions.state import DomainState
from tests.e2e.journals import (
    HISTORY,
    LINKS,
    REVISIONS,
    SNAPSHOT,
    STREAM,
    copied,
    journal_of,
    put_back,
    served,
    toys,
)
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry

SIGNING = Signing("a secret of many characters")
NUM_STEPS = 60


class Adversary:
    """Knows all that Redis ever held, and can write everything."""

    def __init__(self, server: RedisServer, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.copies: list[dict[bytes, bytes]] = [{}]
        self.entries: list[bytes] = [b"junk", b""]
        self.snapshots: list[dict[bytes, bytes]] = []
        self.histories: list[dict[bytes, bytes]] = []

    def watch(self) -> None:
        self.copies.append(copied(self.server))
        with self.server.client as connection, suppress(ResponseError):  # of another type, by our own doing
            client: Any = connection
            self.snapshots += filter(None, [client.hgetall(SNAPSHOT)])
            self.histories += filter(None, [client.hgetall(HISTORY)])
            self.entries += [fields[b"entry"] for _, fields in client.xrange(STREAM) if b"entry" in fields]

    def attack(self) -> None:
        moves: list[Callable[[Any], object]] = [
            lambda client: client.xadd(STREAM, {"entry": self.random.choice(self.entries)}),
            self._forge,
            lambda client: client.hset(REVISIONS, "toys", self.random.choice(["0", "7", "999", "x", "9" * 5000])),
            self._put_snapshot,
            self._put_history,
            self._delete_an_entry,
            lambda client: client.xtrim(STREAM, maxlen=self.random.choice([0, 1, 3])),
            lambda client: client.xadd(LINKS, {"link": "x"}),
            lambda client: client.delete(self.random.choice([STREAM, LINKS, HISTORY, SNAPSHOT, REVISIONS])),
            lambda _: put_back(self.server, self.random.choice(self.copies)),
            lambda client: client.set(self.random.choice([STREAM, LINKS, HISTORY, SNAPSHOT, REVISIONS]), "else"),
        ]
        (move,) = self.random.choices(moves, weights=[8, 8, 4, 3, 3, 4, 2, 1, 2, 2, 0.5])
        with self.server.client as client, suppress(ResponseError):
            move(client)

    def _forge(self, client: Any) -> None:  # noqa: ANN401  # replies of redis-py have loose types
        client.xadd(STREAM, {"entry": encode_entry(stock_entry(self.random.randrange(1, 30), "forged"))})

    def _put_snapshot(self, client: Any) -> None:  # noqa: ANN401  # replies of redis-py have loose types
        forged = {b"states": encode_states({"toys": DomainState(revision=30)}), b"format": b"1"}
        chosen = dict(self.random.choice([*self.snapshots, forged]))
        newest = client.xrevrange(STREAM, count=1)
        ids = [b"1-0", b"9999999999999-0", b"9" * 30 + b"-0", *(each[0] for each in newest)]
        client.hset(SNAPSHOT, mapping={**chosen, b"id": self.random.choice(ids)})

    def _put_history(self, client: Any) -> None:  # noqa: ANN401  # replies of redis-py have loose types
        followed = (client.hget(HISTORY, "id") or b"").decode()
        forged = {b"id": b"forged", b"replaces": json.dumps([followed, "mac:" + "0" * 64]).encode()}
        client.hset(HISTORY, mapping=self.random.choice([*self.histories, forged]))

    def _delete_an_entry(self, client: Any) -> None:  # noqa: ANN401  # replies of redis-py have loose types
        found = client.xrange(STREAM)
        if found:
            client.xdel(STREAM, self.random.choice(found)[0])


class Trial:
    """Replicas of one service, what each has served, and all that was appended."""

    def __init__(self, server: RedisServer, seed: int, stack: AsyncExitStack) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.stack = stack
        self.kept: dict[RedisJournal, set[str]] = {}
        self.appended: set[str] = set()

    async def start(self) -> None:
        size = self.random.choice([3, 1000])
        journal = await self.stack.enter_async_context(journal_of(self.server, size, signing=SIGNING))
        await journal.open()
        self.kept[journal] = set(served(journal))

    async def change(self) -> None:
        journal = self.random.choice(list(self.kept))
        item_id = f"item-{len(self.appended) + 1}"
        self.appended.add(item_id)
        try:
            await journal.append(stock_entry(toys(journal._followed.states).revision + 1, item_id))
        except (JournalError, RevisionConflictError):
            return
        assert item_id in served(journal)

    async def read(self) -> None:
        journal = self.random.choice(list(self.kept))
        with suppress(JournalError):
            await journal.catch_up()
            return
        assert journal.problems

    def check(self) -> None:
        for journal, kept in self.kept.items():
            assert kept <= served(journal) <= self.appended
            self.kept[journal] = served(journal)


@pytest.mark.parametrize("seed", range(8))
async def test_random_writing_changes_nothing_that_is_served(server: RedisServer, seed: int) -> None:
    async with AsyncExitStack() as stack:
        trial, adversary = Trial(server, seed, stack), Adversary(server, seed)
        await trial.start()
        await trial.start()
        steps = [trial.change, trial.read, trial.start]
        for _ in range(NUM_STEPS):
            (step,) = trial.random.choices(steps, weights=[30, 40, 1])
            await step()
            trial.check()
            adversary.watch()
            if trial.random.random() < 0.25:
                adversary.attack()
        most = max(trial.kept, key=lambda journal: len(served(journal)))
        await most.resolve("served")
        await most.catch_up()
        assert (most.problems, served(most)) == ([], trial.kept[most])
        async with journal_of(server, signing=SIGNING) as late:
            await late.open()
            assert (late.problems, served(late)) == ([], served(most))
