"""Whoever writes to Redis, and whatever: replicas go on, keep what they cannot read, and say so until it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import pytest

from service.errors import JournalBrokenError
from service.versions import redis_journal
from service.versions.formats import encode_entry
from service.versions.journal import Update
from service.versions.redis_journal import RedisJournal
from service.versions.state import DomainState
from service.versions.unread_entries import MAX_TRACKED
from tests.e2e.journals import (
    REVISIONS,
    SNAPSHOT,
    STREAM,
    append_otherwise,
    copied,
    items,
    journal_of,
    keeps_snapshot,
    put_back,
    served,
    stock,
    toys,
)
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry
from tests.unit.versions.other_releases import next_entry, next_states

PATIENCE_S = 30.0
JUNK: dict[str, dict[bytes, bytes]] = {
    "no field of the name": {b"wrong": b"field"},
    "not JSON": {b"entry": b"garbage"},
    "wrong UTF-8": {b"entry": b'{"domain":"\xff\xfe"}', b"\xff": b"\xff"},
    "not an object": {b"entry": b"[1]"},
    "a part of an entry": {b"entry": b'{"domain":"toys","revision":3}'},
    "a revision that was never given": {b"entry": encode_entry(stock_entry(2**70, "junk"))},
    "a revision that comes next": {b"entry": encode_entry(stock_entry(3, "junk"))},
    "empty": {b"": b""},
    "a next kind": {b"entry": next_entry(3)},
}


def add(server: RedisServer, fields: dict[bytes, bytes], entry_id: str = "*") -> str:
    with server.client as client:
        found: bytes = client.xadd(STREAM, fields, entry_id)
        return found.decode()


def updates_of(journal: RedisJournal) -> AsyncGenerator[Update]:
    return cast("AsyncGenerator[Update]", journal.changes())


@pytest.mark.parametrize("fields", JUNK.values(), ids=JUNK)
async def test_an_entry_that_no_release_wrote_is_skipped_once_and_reported_until_it_is_deleted(
    server: RedisServer, fields: dict[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with journal_of(server, 3) as one, journal_of(server, 3) as other:
        await stock(one, 1, 2)
        await other.open()
        junk = add(server, fields)
        await other.append(stock_entry(3, "item-3"))
        await stock(one, 4, 8)
        for _ in range(3):
            for journal in (one, other):
                await journal.catch_up()
        assert served(one) == served(other) == items(*range(1, 9))
        assert [record.message for record in caplog.records] == ["journal_entries_unread"] * 2
        for journal in (one, other):
            (problem,) = journal.problems
            assert f"the journal {STREAM} in Redis has 1 entry that cannot be read" in problem
            assert f": {junk}: " in problem
            assert f"XDEL {STREAM} ID" in problem
            assert (journal.num_unread, journal.is_broken) == (1, False)
        with server.client as client:
            assert client.xlen(STREAM) == 9  # nothing is trimmed
            client.xdel(STREAM, junk)
        for journal in (one, other):
            await journal.catch_up()
            assert (journal.problems, journal.num_unread) == ([], 0)
        with server.client as client:
            assert client.xlen(STREAM) < 9
        async with journal_of(server) as late:
            assert toys(await late.open()).revision == 8
            assert (served(late), late.problems) == (served(one), [])


async def test_the_task_that_follows_outlives_all_of_them(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with journal_of(server) as writer, journal_of(server) as follower, aclosing(updates_of(follower)) as changes:
        await writer.open()
        async with asyncio.timeout(PATIENCE_S):
            for number, fields in enumerate(JUNK.values(), start=1):
                add(server, fields)
                await writer.append(stock_entry(number, f"item-{number}"))
                while toys(await anext(changes)).revision < number:
                    pass
        assert served(follower) == items(*range(1, len(JUNK) + 1))
        assert follower.num_unread == len(JUNK) - 1  # revision 3 was taken
        assert len(caplog.records) <= 2 * len(JUNK)


async def test_a_flood_is_counted_and_most_of_it_not_named(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 1)
        with server.client as client, client.pipeline() as pipeline:
            for _ in range(2_500):
                pipeline.xadd(STREAM, {"wrong": "field"})
            pipeline.execute()
        await one.catch_up()
        await stock(one, 2, 2)
        await one.catch_up()
        assert (one.num_unread, served(one)) == (2_500, items(1, 2))
        assert len(one.problems[0]) < 700
        assert len(caplog.records) < 5
        with server.client as client:
            client.xtrim(STREAM, maxlen=1)
        await one.catch_up()
        assert one.num_unread == 2_500 - MAX_TRACKED


async def test_entries_of_the_next_release_are_not_lost_when_redis_goes_back_in_time(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 1)
        older = copied(server)
        await stock(one, 2, 2)
        append_otherwise(server, next_entry(3), 3)
        await one.catch_up()
        put_back(server, older)
        with pytest.raises(JournalBrokenError, match="has 1 entry that cannot be read"):
            await one.catch_up()
        assert copied(server) == older
        await one.resolve("served")
        assert (served(one), one.problems) == (items(1, 2), [])


async def test_an_operator_may_keep_a_redis_that_is_empty(server: RedisServer) -> None:
    async with journal_of(server) as one, journal_of(server) as other:
        await stock(one, 1, 1)
        add(server, {b"wrong": b"field"})
        await one.catch_up()
        await other.catch_up()
        put_back(server, {})
        for journal in (one, other):
            with pytest.raises(JournalBrokenError, match="it is gone"):
                await journal.catch_up()
        await one.resolve("stored")
        for journal in (one, other):
            update = await journal.catch_up()
            assert (update.epoch, toys(update), journal.problems) == (1, DomainState(), [])
            assert list(update.states) == ["toys"]
        await stock(other, 1, 2)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"states": b"garbage"}, "it is not JSON"),
        ({"states": next_states(), "format": 2}, "its format is 2"),
        ({"states": b'{"toys": 1}'}, "toys"),
        ({"id": b"garbage"}, "its id is not an entry's"),
        ({"states": None}, "it is not JSON"),
        ({"id": None}, "its id is not an entry's"),
    ],
    ids=["garbage", "next release", "wrong", "wrong id", "no states", "no id"],
)
async def test_a_snapshot_that_cannot_be_read_is_kept_and_reported_and_ends_no_start(
    server: RedisServer,
    fields: dict[str, bytes | int | None],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_journal, "RECHECK_S", 0.0)
    async with journal_of(server, 3) as one:
        await stock(one, 1, 3)
        await one.catch_up()
        await stock(one, 4, 4)
        with server.client as client:
            whole = client.hgetall(SNAPSHOT)
            for name, value in fields.items():
                client.hdel(SNAPSHOT, name) if value is None else client.hset(SNAPSHOT, name, value)
        damaged = copied(server)
        async with journal_of(server, 1) as late:
            await late.open()
            assert served(late) == items(4) if "id" not in fields else items(3, 4)
            assert late.is_broken
            assert reason in late.problems[0]
            assert 'send POST /admin/journal/resolve with {"keep": "served"} to a replica that' in late.problems[0]
            with pytest.raises(JournalBrokenError, match="cannot be read"):
                await late.append(stock_entry(5, "item-5"))
            await late.catch_up()
            assert copied(server)[SNAPSHOT.encode()] == damaged[SNAPSHOT.encode()]

            with server.client as client:
                client.hset(SNAPSHOT, mapping=whole)
            update = await late.catch_up()
            assert update.epoch > 0
            assert toys(update).changes.active == toys(one._followed.states).changes.active
            assert late.problems == []
            await late.append(stock_entry(5, "item-5"))

            with server.client as client:
                client.hset(SNAPSHOT, "states", b"garbage")
            async with journal_of(server) as later:
                await later.open()
                assert later.is_broken
                await one.catch_up()
                await one.resolve("served")
                await later.catch_up()
                assert (served(later), later.problems) == (items(1, 2, 3, 4, 5), [])


async def test_a_snapshot_of_the_next_release_is_not_replaced_by_one_of_this(server: RedisServer) -> None:
    async with journal_of(server, 2) as one:
        await stock(one, 1, 2)
        await one.catch_up()
        with server.client as client:
            client.hset(SNAPSHOT, mapping={"states": next_states(), "format": 2})
        await keeps_snapshot(one, server)


async def test_entries_that_are_missing_are_noticed_by_who_has_not_seen_them(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 4)
        await one.append(stock_entry(1, "a", domain="games"))
        with server.client as client:
            second = client.xrange(STREAM)[1][0]
            client.xdel(STREAM, second)
        await one.catch_up()
        assert one.problems == []
        async with journal_of(server) as late:
            await late.open()
            assert served(late) == items(1, 3, 4)
            assert f"the journal {STREAM} in Redis lacks changes of toys" in late.problems[0]
            with pytest.raises(JournalBrokenError, match="lacks changes of toys"):
                await late.append(stock_entry(5, "b"))
            await late.append(stock_entry(2, "b", domain="games"))
            await one.catch_up()
            await one.resolve("served")
            await late.catch_up()
            assert (served(late), late.problems) == (items(1, 2, 3, 4), [])


async def test_a_snapshot_that_is_gone_is_noticed_by_who_needs_it(server: RedisServer) -> None:
    async with journal_of(server, 2) as one:
        await stock(one, 1, 2)
        await one.catch_up()
        with server.client as client:
            client.delete(SNAPSHOT)
        async with journal_of(server) as late:
            await late.open()
            assert "lacks changes of toys" in late.problems[0]
        await stock(one, 3, 3)
        await one.catch_up()
        assert (served(one), one.problems) == (items(1, 2, 3), [])


async def test_a_lower_revision_in_redis_does_not_stop_changes(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 3)
        for value in (b"1", b"garbage", b"-5"):
            with server.client as client:
                client.hset(REVISIONS, "toys", value)
            revision = toys(one._followed.states).revision + 1
            await stock(one, revision, revision)
        assert served(one) == items(1, 2, 3, 4, 5, 6)


async def test_a_revision_of_any_length_ends_no_reading(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 2)
        with server.client as client:
            client.hset(REVISIONS, "toys", "9" * 5000)
        await one.catch_up()
        assert (served(one), one.problems) == (items(1, 2), [])


async def test_an_id_beyond_all_numbers_is_reported_and_can_be_resolved(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 2)
        with server.client as client:
            client.hset(SNAPSHOT, mapping={"id": "9" * 30 + "-1", "states": b"{}", "format": 1})
        async with journal_of(server) as late:
            await late.open()
            assert "its id is not an entry's" in late.problems[0]
        await one.resolve("served")
        await stock(one, 3, 3)
        assert one.problems == []


async def test_a_snapshot_that_cannot_be_read_and_then_is_gone_takes_nothing_back(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_journal, "RECHECK_S", 0.0)
    async with journal_of(server) as one:
        await stock(one, 1, 3)
        with server.client as client:
            client.xtrim(STREAM, maxlen=0)
            client.hset(SNAPSHOT, mapping={"id": "9999999999999-0", "states": b"garbage", "format": 1})
            await one.catch_up()
            client.flushall()
        with pytest.raises(JournalBrokenError, match="it is gone"):
            await one.catch_up()
        assert (served(one), one.is_broken) == (items(1, 2, 3), True)
