"""Who can write to Redis, and has not the secret, changes nothing that is served, and stops no replica."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import pytest
from redis import Redis

from feature_cache.signing import Signing
from service.errors import JournalBrokenError, RevisionConflictError
from service.versions.formats import encode_entry
from tests.e2e.journals import (
    HISTORY,
    LINKS,
    REVISIONS,
    SNAPSHOT,
    STREAM,
    copied,
    items,
    journal_of,
    put_back,
    served,
    stock,
    toys,
)
from tests.e2e.test_redis_unread import PATIENCE_S, updates_of
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry
from tests.unit.versions.other_releases import next_entry

SIGNING = Signing("a secret of many characters")
OTHER = Signing("another secret of characters")
Entries = Mapping[str, bytes]


def contents(client: Redis, stream: str = STREAM) -> list[bytes]:
    found: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(stream)  # type: ignore[assignment]
    return [fields[b"entry"] for _, fields in found]


async def signed_elsewhere(server: RedisServer) -> Entries:
    """Entries with valid signatures of other places, each with revision 3 and of the domain toys."""
    found = {}
    for name, service_id, signing in (("service", "games", SIGNING), ("secret", "shop", OTHER)):
        async with journal_of(server, service_id=service_id, signing=signing) as journal:
            await stock(journal, 1, 3)
        with server.client as client:
            found[name] = contents(client, f"vip5:{{{service_id}}}:journal")[2]
            client.flushall()
    async with journal_of(server, signing=SIGNING) as journal:
        await stock(journal, 1, 3)
    with server.client as client:
        found["history"] = contents(client)[2]
        client.flushall()
    return found


def changed(content: bytes) -> bytes:
    return content.replace(b"item-2", b"item-9")


FORGERIES: Mapping[str, tuple[Callable[[list[bytes], Entries], bytes], str]] = {
    "unsigned": (lambda _, __: encode_entry(stock_entry(3, "junk")), "it is not signed"),
    "unsigned, far ahead": (lambda _, __: encode_entry(stock_entry(2**70, "junk")), "it is not signed"),
    "changed": (lambda own, _: changed(own[1]), "its signature is not valid"),
    "cut off": (lambda own, _: own[1][:-9], "it is not signed"),
    "repeated": (lambda own, _: own[0], "it repeats or contradicts revision 1 of 'toys'"),
    "the last one repeated": (lambda own, _: own[1], "it repeats or contradicts revision 2 of 'toys'"),
    "of another domain": (
        lambda own, _: own[1].replace(b'"domain":"toys"', b'"domain":"games"'),
        "its signature is not valid",
    ),
    "of another service": (lambda _, elsewhere: elsewhere["service"], "its signature is not valid"),
    "of another history": (lambda _, elsewhere: elsewhere["history"], "its signature is not valid"),
    "with another secret": (lambda _, elsewhere: elsewhere["secret"], "its signature is not valid"),
    "a signature of zeros": (
        lambda _, __: encode_entry(stock_entry(3, "junk"))[:-1] + b',"after":"","mac":"' + b"0" * 64 + b'"}',
        "its signature is not valid",
    ),
}


@pytest.mark.parametrize(("forge", "reason"), FORGERIES.values(), ids=FORGERIES)
async def test_an_entry_that_was_not_signed_for_its_place_is_skipped_once_and_reported(
    server: RedisServer,
    forge: Callable[[list[bytes], Entries], bytes],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere = await signed_elsewhere(server)
    caplog.clear()
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as other:
        await stock(one, 1, 2)
        await other.open()
        with server.client as client:
            forgery = client.xadd(STREAM, {"entry": forge(contents(client), elsewhere)})
        await stock(other, 3, 3)
        await one.append(stock_entry(1, "a", domain="games"))
        await other.catch_up()
        await stock(one, 4, 5)
        await other.catch_up()
        async with journal_of(server, signing=SIGNING) as late:
            await late.open()
            for journal in (one, other, late):
                assert served(journal) == items(1, 2, 3, 4, 5)
                assert journal._followed.states["games"].revision == 1
                (problem,) = journal.problems
                assert f": {forgery.decode()}: {reason}" in problem
                assert (journal.num_unread, journal.is_broken) == (1, False)
        assert [record.message for record in caplog.records] == ["journal_entries_unread"] * 3
        with server.client as client:
            client.xdel(STREAM, forgery)
        for journal in (one, other):
            await journal.catch_up()
            assert journal.problems == []


async def test_entries_in_another_order_or_of_a_fork_are_noticed_by_who_has_not_read_them(server: RedisServer) -> None:
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as fork:
        await stock(one, 1, 2)
        await fork.open()
        older = copied(server)
        await stock(one, 3, 4)
        with server.client as client:
            own = contents(client)
        put_back(server, older)
        await fork.append(stock_entry(3, "forked"))
        with server.client as client:
            forked = contents(client)[2]
            for order, expected, told in (
                ([own[0], own[2], own[1], own[3]], items(1, 3, 4), "lacks changes of toys"),
                ([*own[:2], forked, own[3]], items(1, 2, 4) | {"forked"}, "it was signed to follow another change"),
            ):
                client.delete(STREAM, LINKS, REVISIONS)
                for content in order:
                    client.xadd(STREAM, {"entry": content})
                async with journal_of(server, signing=SIGNING) as late:
                    await late.open()
                    assert told in " ".join(late.problems)
                    assert served(late) <= expected
                    assert late.num_unread == 1


async def test_a_forged_history_does_not_replace_what_is_served(server: RedisServer) -> None:
    """The names of the histories that a history replaces make replicas give up their state."""
    async with journal_of(server, signing=SIGNING) as one:
        await stock(one, 1, 3)
        with server.client as client:
            followed = client.hget(HISTORY, "id").decode()
            for names in ([followed], [followed, "mac:" + "0" * 64], [followed, "mac:x"]):
                client.flushall()
                client.hset(HISTORY, mapping={"id": "forged", "replaces": json.dumps(names)})
                client.xadd(STREAM, {"entry": encode_entry(stock_entry(1, "junk"))})
                with pytest.raises(JournalBrokenError, match="its history is forged"):
                    await one.catch_up()
                assert served(one) == items(1, 2, 3)
        await one.resolve("served")
        await stock(one, 4, 4)
        assert (served(one), one.problems) == (items(1, 2, 3, 4), [])


async def test_an_older_history_does_not_replace_the_newer_one(server: RedisServer) -> None:
    """All of it was signed, but not that it replaces the newer one."""
    async with journal_of(server, signing=SIGNING) as one:
        await stock(one, 1, 2)
        await one.resolve("served")
        older = copied(server)
        await stock(one, 3, 3)
        await one.resolve("served")
        with server.client as client:
            newer = client.hget(HISTORY, "id").decode()
            put_back(server, older)
            names = json.loads(client.hget(HISTORY, "replaces"))
            for forged in ([newer], [*names, newer], [newer, *names]):
                client.hset(HISTORY, "replaces", json.dumps(forged))
                with pytest.raises(JournalBrokenError, match="its history is"):
                    await one.catch_up()
                assert served(one) == items(1, 2, 3)


@pytest.mark.parametrize("value", ["999", "0", "9" * 5000, "garbage"])
async def test_revisions_that_are_not_signed_decide_nothing(server: RedisServer, value: str) -> None:
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as other:
        await stock(one, 1, 2)
        await other.open()
        with server.client as client:
            client.hset(REVISIONS, "toys", value)
        await other.catch_up()
        await stock(other, 3, 3)
        with server.client as client:
            client.hset(REVISIONS, "toys", value)
        await stock(one, 4, 4)
        with pytest.raises(RevisionConflictError):
            await other.append(stock_entry(4, "late"))
        for journal in (one, other):
            await journal.catch_up()
            assert (served(journal), journal.problems) == (items(1, 2, 3, 4), [])


async def test_the_newest_entry_that_was_deleted_is_missed(server: RedisServer) -> None:
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as other:
        await stock(one, 1, 2)
        await other.open()
        await stock(one, 3, 3)
        with server.client as client:
            client.xdel(STREAM, client.xrevrange(STREAM, count=1)[0][0])
        await other.catch_up()
        assert "lacks changes of toys" in other.problems[0]
        with pytest.raises(JournalBrokenError, match="lacks changes of toys"):
            await other.append(stock_entry(3, "other"))
        await one.catch_up()
        assert one.problems == []
        await one.resolve("served")
        await other.catch_up()
        assert (served(other), other.problems) == (items(1, 2, 3), [])


async def test_an_id_beyond_all_numbers_is_reported_and_can_be_resolved(server: RedisServer) -> None:
    async with journal_of(server, signing=SIGNING) as one:
        await stock(one, 1, 2)
        with server.client as client:
            client.hset(SNAPSHOT, mapping={"id": "9" * 30 + "-1", "states": b"{}", "format": 1})
        async with journal_of(server, signing=SIGNING) as late:
            await late.open()
            assert "its id is not an entry's" in late.problems[0]
        await one.resolve("served")
        await stock(one, 3, 3)
        assert one.problems == []


async def test_the_task_that_follows_outlives_a_flood_of_forgeries(server: RedisServer) -> None:
    async with (
        journal_of(server, signing=SIGNING) as writer,
        journal_of(server, signing=SIGNING) as follower,
    ):
        await stock(writer, 1, 1)
        changes = updates_of(follower)
        async with asyncio.timeout(PATIENCE_S):
            for number in range(2, 12):
                with server.client as client, client.pipeline() as pipeline:
                    for _ in range(300):
                        pipeline.xadd(STREAM, {"entry": encode_entry(stock_entry(number, "junk"))})
                    pipeline.execute()
                await stock(writer, number, number)
                while toys(await anext(changes)).revision < number:
                    pass
        await changes.aclose()
        assert served(follower) == items(*range(1, 12))
        assert follower.num_unread == 3_000


async def test_what_redis_lost_is_put_back_although_somebody_left_junk(server: RedisServer) -> None:
    async with journal_of(server, signing=SIGNING) as one:
        await stock(one, 1, 2)
        with server.client as client:
            client.xadd(STREAM, {"entry": b"junk"})
            await one.catch_up()
            client.flushall()
        await one.catch_up()
        async with journal_of(server, signing=SIGNING) as late:
            await late.open()
            await stock(late, 3, 3)
            assert (served(late), late.problems) == (items(1, 2, 3), [])


async def test_a_signed_entry_of_the_next_release_is_skipped_and_counted(server: RedisServer) -> None:
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as other:
        await stock(one, 1, 1)
        await other.open()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.versions.signed_chain.encode_entry", lambda entry: next_entry(entry.revision))
            await stock(one, 2, 2)
        await stock(one, 3, 3)
        await other.catch_up()
        for journal in (one, other):
            assert served(journal) == items(1, 3)
            assert (journal.num_unread, journal.is_broken) == (1, False)
            assert "changes of toys among them" in journal.problems[0]
