"""Replicas of releases that follow each other share a journal in Redis."""

from __future__ import annotations

from service.versions.formats import encode_entry
from service.versions.redis_journal import RedisJournal
from tests.e2e.journals import (
    REVISIONS,
    SNAPSHOT,
    STREAM,
    append_otherwise,
    copied,
    items,
    journal_of,
    put_back,
    served,
    stock,
    toys,
)
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry
from tests.unit.versions.other_releases import FORMER_ENTRIES, FORMER_STATES, next_entry


async def test_a_stream_of_the_release_before_is_adopted(server: RedisServer) -> None:
    for revision, line in enumerate(FORMER_ENTRIES[:3], start=1):
        append_otherwise(server, line, revision)
    async with journal_of(server) as one, journal_of(server) as other:
        assert toys(await one.open()).revision == 3
        await one.append(stock_entry(4, "item-4"))
        append_otherwise(server, FORMER_ENTRIES[4], 5)  # a replica of the release before, in a rolling upgrade
        await other.open()
        await other.append(stock_entry(6, "item-6"))
        await one.catch_up()
        assert one._followed.states == other._followed.states
        assert (toys(one._followed.states).revision, one.problems, other.problems) == (6, [], [])


async def test_a_snapshot_of_the_release_before_is_adopted(server: RedisServer) -> None:
    with server.client as client:
        client.hset(SNAPSHOT, mapping={"id": "5-0", "states": FORMER_STATES})
        client.hset(REVISIONS, "toys", 6)
    async with journal_of(server) as one:
        assert toys(await one.open()).revision == 6
        await one.append(stock_entry(7, "item-7"))
        older = copied(server)
        await one.append(stock_entry(8, "item-8"))
        put_back(server, older)
        await one.catch_up()
        assert (toys(one._followed.states).revision, one.problems) == (8, [])
        async with journal_of(server) as late:
            assert toys(await late.open()).revision == 8


async def test_the_states_of_the_release_before_and_its_format_are_read(server: RedisServer) -> None:
    with server.client as client:
        client.hset(SNAPSHOT, mapping={"id": "5-0", "states": FORMER_STATES})
        client.hset(REVISIONS, "toys", 6)
    async with journal_of(server, 1) as one:
        await one.open()
        await stock(one, 7, 7)
        await one.catch_up()
        with server.client as client:
            assert client.hget(SNAPSHOT, "format") == b"1"
        async with journal_of(server) as late:
            assert toys(await late.open()).revision == 7


async def upgraded(server: RedisServer, journal: RedisJournal) -> None:
    """Entries 3 and 5 are of the next release, which has other replicas already."""
    await stock(journal, 1, 2)
    append_otherwise(server, next_entry(3), 3)
    append_otherwise(server, encode_entry(stock_entry(4, "item-4")), 4)
    append_otherwise(server, encode_entry(stock_entry(5, "next")).replace(b'"format":1', b'"format":2'), 5)


async def test_entries_of_the_next_release_are_kept_for_it_and_later_changes_go_on(server: RedisServer) -> None:
    """A rolling upgrade: replicas of both releases run, and both are asked to change the domain."""
    async with journal_of(server, 2) as one:
        await upgraded(server, one)
        await one.catch_up()
        assert served(one) == items(1, 2, 4)
        assert toys(one._followed.states).revision == 5
        (problem,) = one.problems
        assert "has 2 entries that cannot be read" in problem
        assert "changes of toys among them" in problem
        assert "its format is 2, and this release reads formats up to 1" in problem
        await stock(one, 6, 8)
        await one.catch_up()
        assert served(one) == items(1, 2, 4, 6, 7, 8)
        with server.client as client:
            stored = [fields[b"entry"] for _, fields in client.xrange(STREAM)]
            assert client.exists(SNAPSHOT) == 0
        assert len(stored) == 8
        assert next_entry(3) in stored


async def test_a_replica_that_is_downgraded_goes_on_with_what_it_can_read(server: RedisServer) -> None:
    async with journal_of(server) as before:
        await upgraded(server, before)
    async with journal_of(server) as one:
        await one.open()
        assert (served(one), one.num_unread, one.is_broken) == (items(1, 2, 4), 2, False)
        await stock(one, 6, 6)
        assert served(one) == items(1, 2, 4, 6)
