"""A snapshot in Redis that was not signed is neither served nor obeyed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from service.errors import JournalBrokenError
from service.versions import redis_journal
from service.versions.formats import encode_states
from service.versions.state import DomainState
from tests.e2e.journals import (
    SNAPSHOT,
    STREAM,
    copied,
    items,
    journal_of,
    keeps_snapshot,
    put_back,
    served,
    stock,
    toys,
)
from tests.e2e.test_redis_signed_journal import SIGNING
from tests.redis_servers import RedisServer
from tests.unit.versions.other_releases import next_states


def signed_by_next_release(history: str) -> bytes:
    body = next_states()
    signature = SIGNING.signer("journal", "shop").sign("snapshot", history, body)
    return b"signed " + signature.hex().encode() + b" " + body


async def test_a_new_history_without_its_snapshot_does_not_replace_what_is_served(server: RedisServer) -> None:
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as other:
        await stock(one, 1, 3)
        await other.open()
        await one.resolve("served")
        whole = copied(server)
        with server.client as client:
            client.delete(SNAPSHOT)
            with pytest.raises(JournalBrokenError):
                await other.catch_up()
            client.hset(SNAPSHOT, mapping={"id": "1-1", "states": encode_states({}), "format": 1})
        with pytest.raises(JournalBrokenError):
            await other.catch_up()
        assert served(other) == items(1, 2, 3)
        put_back(server, whole)
        await other.catch_up()
        assert (served(other), other.problems) == (items(1, 2, 3), [])


SNAPSHOTS: Mapping[str, Callable[[bytes], bytes]] = {
    "unsigned": lambda _: encode_states({"toys": DomainState(revision=9)}),
    "empty": lambda _: b"{}",
    "changed": lambda states: states.replace(b"item-1", b"item-9"),
    "without its signature": lambda states: states[len(b"signed ") + 65 :],
    "cut off": lambda states: states[:-1],
}


@pytest.mark.parametrize("forge", SNAPSHOTS.values(), ids=SNAPSHOTS)
async def test_a_snapshot_that_was_not_signed_is_not_served(
    server: RedisServer, forge: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_journal, "RECHECK_S", 0.0)
    async with journal_of(server, 3, signing=SIGNING) as one:
        await stock(one, 1, 3)
        await one.catch_up()
        await stock(one, 4, 4)
        with server.client as client:
            whole = client.hget(SNAPSHOT, "states")
            assert whole.startswith(b"signed ")
            client.hset(SNAPSHOT, "states", forge(whole))
        async with journal_of(server, signing=SIGNING) as late:
            await late.open()
            assert served(late) == items(4)
            assert late.is_broken
            assert "the snapshot" in late.problems[0]
            await stock(one, 5, 5)
            await late.catch_up()
            assert served(late) == items(4, 5)
            await one.resolve("served")
            await late.catch_up()
            assert (served(late), late.problems) == (items(1, 2, 3, 4, 5), [])


async def test_a_stream_and_snapshot_that_are_replaced_do_not_blind_who_follows(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_journal, "RECHECK_S", 0.0)
    async with journal_of(server, signing=SIGNING) as one:
        await stock(one, 1, 3)
        with server.client as client:
            client.xtrim(STREAM, maxlen=0)
            client.hset(SNAPSHOT, mapping={"id": "9999999999999-0", "states": b"{}", "format": 1})
            await one.catch_up()
            assert (served(one), one.is_broken) == (items(1, 2, 3), True)
            client.flushall()
        for _ in range(2):
            with pytest.raises(JournalBrokenError):
                await one.catch_up()
            assert (served(one), one.is_broken) == (items(1, 2, 3), True)
        await one.resolve("served")
        await stock(one, 4, 4)
        assert (served(one), one.problems) == (items(1, 2, 3, 4), [])


@pytest.mark.parametrize("forged", ["999", "2"])
async def test_a_format_that_is_not_signed_keeps_no_replica_from_storing(server: RedisServer, forged: str) -> None:
    async with journal_of(server, 2, signing=SIGNING) as one:
        await stock(one, 1, 2)
        await one.catch_up()
        with server.client as client:
            first = client.hget(SNAPSHOT, "id")
            client.hset(SNAPSHOT, "format", forged)
        await stock(one, 3, 4)
        await one.catch_up()
        with server.client as client:
            assert client.hget(SNAPSHOT, "id") != first
            assert client.hget(SNAPSHOT, "format") == b"1"
        older = copied(server)
        await stock(one, 5, 5)
        put_back(server, older)
        with server.client as client:
            client.hset(SNAPSHOT, "format", forged)
        await one.catch_up()
        async with journal_of(server, signing=SIGNING) as late:
            assert toys(await late.open()).revision == 5


async def test_a_snapshot_that_a_newer_release_signed_is_kept_whatever_its_format_says(server: RedisServer) -> None:
    async with journal_of(server, 2, signing=SIGNING) as one:
        await stock(one, 1, 2)
        await one.catch_up()
        with server.client as client:
            client.hset(SNAPSHOT, mapping={"states": signed_by_next_release(one.history), "format": 1})
        await keeps_snapshot(one, server)
