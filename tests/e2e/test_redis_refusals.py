"""A Redis that refuses a command, or is asked twice because its answer was lost: what was refused leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import Link, connect
from service.errors import JournalError, RevisionConflictError
from service.observability.metrics import Metrics
from service.versions.redis_journal import RedisJournal
from tests.e2e.journals import LINKS, STREAM, copied, items, journal_of, served, stock
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry


class AskedTwice:
    """A link on which the first answer to every command is lost, so that the command is sent again."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def run(self, *command: str | int | bytes) -> Any:  # noqa: ANN401  # a reply of Redis
        await self._link.run(*command)
        return await self._link.run(*command)

    async def close(self) -> None:
        await self._link.close()


async def test_a_change_whose_answer_was_lost_is_made_once_and_answered(server: RedisServer) -> None:
    journal = RedisJournal(AskedTwice(connect(RedisAddress.parse(server.url))), "shop", Metrics())  # type: ignore[arg-type]
    try:
        await stock(journal, 1, 3)
        with server.client as client:
            num_entries = client.xlen(STREAM)
        await journal.resolve("served")
        await stock(journal, 4, 4)
        problems = journal.problems
    finally:
        await journal.close()

    assert num_entries == 3
    assert problems == []
    async with journal_of(server) as other:
        await other.open()
        assert served(other) == items(1, 2, 3, 4)


async def test_another_change_at_the_same_revision_is_still_a_conflict(server: RedisServer) -> None:
    async with journal_of(server) as first, journal_of(server) as second:
        await stock(first, 1, 1)
        with pytest.raises(RevisionConflictError, match="was changed by another client meanwhile"):
            await second.append(stock_entry(1, "item-1"))


@pytest.mark.parametrize("command", ["xadd", "hset", "xtrim", "xrange", "hget", "eval"])
async def test_a_change_that_redis_may_not_store_whole_leaves_no_trace(server: RedisServer, command: str) -> None:
    with server.client as client:
        client.acl_setuser("shop", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        url = server.url.replace("redis://", "redis://shop:any@")
        try:
            async with journal_of(server, url=url) as journal:
                await stock(journal, 1, 2)
                before = copied(server)
                client.acl_setuser("shop", commands=[f"-{command}"])
                with pytest.raises(JournalError, match=r"refused the (last )?change"):
                    await journal.append(stock_entry(3, "item-3"))
                refused = copied(server)
                problems = journal.problems
                client.acl_setuser("shop", commands=["+@all"])
                async with journal_of(server) as other:
                    await other.open()
                    seen = served(other), other.problems
                await stock(journal, 3, 3)
                after = journal.problems
        finally:
            client.acl_deluser("shop")

    assert refused == before
    assert any("refused the last change, which was not made" in problem for problem in problems)
    assert seen == (items(1, 2), [])
    assert after == []


async def test_a_refusal_to_read_is_told_as_what_it_is(server: RedisServer) -> None:
    with server.client as client:
        client.acl_setuser("shop", enabled=True, nopass=True, commands=["+@all"], keys=["*"])
        url = server.url.replace("redis://", "redis://shop:any@")
        try:
            async with journal_of(server, url=url) as journal:
                await stock(journal, 1, 1)
                client.acl_setuser("shop", commands=["-eval"])
                with pytest.raises(JournalError, match="Redis, which stores the journal, refuses to read it"):
                    await journal.catch_up()
                problems = journal.problems
                client.acl_setuser("shop", commands=["+@all"])
                await journal.catch_up()
                after = journal.problems
        finally:
            client.acl_deluser("shop")

    assert len(problems) == 1
    assert "permissions" in problems[0]
    assert after == []


async def test_links_that_lack_their_end_are_reported_and_one_command_ends_it(server: RedisServer) -> None:
    async with journal_of(server) as journal:
        await stock(journal, 1, 3)
        with server.client as client:
            client.xdel(LINKS, client.xrevrange(LINKS, count=1)[0][0])
        with pytest.raises(JournalError, match="is not a journal's"):
            await journal.catch_up()
        await journal.resolve("served")
        await stock(journal, 4, 4)
        problems = journal.problems

    assert problems == []
    async with journal_of(server) as other:
        await other.open()
        assert served(other) == items(1, 2, 3, 4)
