"""If Redis goes back in time or has another past, no replica takes back what it answered, nor mixes two pasts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from service.errors import JournalBrokenError, JournalError, OperationConflictError, RevisionConflictError
from service.observability.metrics import Metrics
from service.versions import followed_journal, redis_journal
from service.versions.journal import Kept
from service.versions.redis_journal import RedisJournal
from service.versions.stored_journal import Found, Position
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
from tests.redis_servers import HOST, RedisServer, redis_cluster, sentinel_group
from tests.unit.versions.entries import stock_entry

WAYS = ("empty", "older", "stream gone")


def lose(server: RedisServer, way: str, older: dict[bytes, bytes]) -> None:
    if way == "stream gone":
        with server.client as client:
            client.delete(STREAM)
    else:
        put_back(server, older if way == "older" else {})


def samples(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.render().content.decode().splitlines() if line.startswith("vip5_journal_breaks_")]
    found = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "total" in line}
    return {kind: number for kind, number in found.items() if number}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_lagging_first", [True, False])
async def test_what_redis_lost_is_put_back_by_the_replica_that_has_the_most(
    server: RedisServer,
    way: str,
    is_lagging_first: bool,  # noqa: FBT001
) -> None:
    metrics = Metrics()
    async with journal_of(server, metrics=metrics) as most, journal_of(server) as lagging:
        await stock(most, 1, 2)
        older = copied(server)
        await stock(most, 3, 4)
        await lagging.catch_up()
        await stock(most, 5, 5)
        lose(server, way, older)
        if is_lagging_first:
            is_noticed = pytest.raises(JournalBrokenError, match="its stream is gone")
            with is_noticed if way == "stream gone" else nullcontext():
                await lagging.catch_up()
        await most.catch_up()
        update = await lagging.catch_up()
        assert most.problems == lagging.problems == []
        assert served(lagging) == served(most) == items(1, 2, 3, 4, 5)
        assert update.epoch == lagging.epoch == 0
        assert samples(metrics) == {"behind": 1.0}
        async with journal_of(server) as late:
            assert toys(await late.open()).revision == 5
            assert served(late) == served(most)
            await late.append(stock_entry(6, "item-6"))
        await most.catch_up()
        assert served(most) == items(1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("way", WAYS)
async def test_a_change_after_a_loss_is_made_on_top_of_what_was_put_back(server: RedisServer, way: str) -> None:
    async with journal_of(server) as one, journal_of(server) as other:
        await stock(one, 1, 2)
        older = copied(server)
        await stock(one, 3, 3)
        await other.open()
        lose(server, way, older)
        await one.append(stock_entry(4, "item-4"))
        await other.append(stock_entry(1, "item-1", domain="games"))
        await one.catch_up()
        assert served(one) == served(other) == items(1, 2, 3, 4)
        assert one._followed.states["games"].revision == 1


async def test_a_loss_is_put_back_from_a_snapshot_too(server: RedisServer) -> None:
    async with journal_of(server, 3) as one, journal_of(server) as late:
        for revision in range(1, 6):
            await stock(one, revision, revision)
            await one.catch_up()
        older = copied(server)
        await stock(one, 6, 6)
        await late.open()
        for loss in (older, {}):
            put_back(server, loss)
            await late.catch_up()
            async with journal_of(server) as fresh:
                await fresh.open()
                assert served(fresh) == served(late) == items(*range(1, 7))


async def fork(server: RedisServer, one: RedisJournal, other: RedisJournal) -> None:
    """Both replicas go on from revision 2, and each has a revision 3 of its own; Redis has the other's."""
    await stock(one, 1, 2)
    await other.catch_up()
    older = copied(server)
    await one.append(stock_entry(3, "one"))
    put_back(server, older)
    await other.append(stock_entry(3, "other"))


async def replacement(server: RedisServer, one: RedisJournal, other: RedisJournal) -> None:
    """Another service's history is in the place of the one that the first replica followed."""
    await stock(one, 1, 2)
    await one.append(stock_entry(3, "one"))
    put_back(server, {})
    await stock(other, 1, 2)
    await other.append(stock_entry(3, "other"))


@pytest.mark.parametrize(
    ("breaking", "kind", "told"),
    [
        (fork, "forked", "in the same history .*, it ends with entry .*, and lacks or differs in entry"),
        (replacement, "other", "its history is .*, where this replica followed"),
    ],
)
@pytest.mark.parametrize("keep", ["served", "stored"])
async def test_another_past_is_refused_until_an_operator_decides_once_for_all_replicas(
    server: RedisServer, breaking: object, kind: str, told: str, keep: Kept
) -> None:
    metrics = Metrics()
    async with journal_of(server, metrics=metrics) as one, journal_of(server) as other:
        await breaking(server, one, other)  # type: ignore[operator]
        async with journal_of(server) as third:
            await third.open()
            for _ in range(2):
                with pytest.raises(JournalBrokenError, match=told):
                    await one.catch_up()
                with pytest.raises(JournalBrokenError, match=told) as caught:
                    await one.append(stock_entry(4, "item-4"))
            assert one.problems == [str(caught.value)]
            assert one.is_broken
            assert samples(metrics) == {kind: 1.0}
            assert "POST /admin/journal/resolve" in one.problems[0]
            assert served(one) == items(1, 2) | {"one"}
            await other.append(stock_entry(4, "item-4"))
            assert not other.is_broken

            await one.resolve(keep)
            expected = items(1, 2) | ({"one"} if keep == "served" else {"other", "item-4"})
            for journal in (one, other, third):
                update = await journal.catch_up()
                assert served(journal) == expected
                assert journal.problems == []
                assert update.epoch == (0 if (journal is one) == (keep == "served") and journal is one else 1)
            revision = 4 if keep == "served" else 5
            await other.append(stock_entry(revision, "last"))
            await one.catch_up()
            assert served(one) == served(other) == expected | {"last"}
        async with journal_of(server) as late:
            await late.open()
            assert served(late) == served(one)


async def test_a_replica_serves_its_state_until_it_has_read_the_history_that_it_is_to_follow(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journal_of(server) as one, journal_of(server) as other:
        await fork(server, one, other)
        await one.resolve("served")
        really_read = other._stored.read
        failures = [RedisConnectionError()] * 3

        async def read(position: Position, unread: Iterable[str]) -> Found:
            if not position.history and failures:
                raise failures.pop()
            return await really_read(position, unread)

        monkeypatch.setattr(other._stored, "read", read)
        monkeypatch.setattr(redis_journal, "RETRY_S", 0.0)
        other._followed.take()
        assert toys(await anext(other.changes())).changes.active == toys(one._followed.states).changes.active
        assert not failures


async def test_waiting_for_entries_may_fail_without_haste(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of Redis may be allowed the scripts and not XREAD, for example."""
    async with journal_of(server) as one, journal_of(server) as other:
        await other.open()
        num_waits, slept = 0, []
        sleep = asyncio.sleep

        async def wait(after: str, timeout_ms: int) -> None:
            nonlocal num_waits
            num_waits += 1
            if num_waits == 5:
                await stock(one, 1, 1)
            raise ResponseError("NOPERM")

        async def count(duration_s: float) -> None:
            slept.append(duration_s)
            await sleep(0)

        monkeypatch.setattr(other._stored, "wait", wait)
        monkeypatch.setattr(asyncio, "sleep", count)
        assert toys(await anext(other.changes())).revision == 1
        assert slept == [redis_journal.RETRY_S] * 5


async def test_what_an_operator_gives_up_is_kept_under_other_names(server: RedisServer) -> None:
    async with journal_of(server) as one, journal_of(server) as other:
        await fork(server, one, other)
        stored = copied(server)
        await one.resolve("served")
        kept = copied(server)
        assert sorted(set(stored.values()) - set(kept.values())) == []
        await one.resolve("served")
        assert set(kept.values()) <= set(copied(server).values())


async def test_a_replica_that_follows_what_is_stored_has_nothing_to_resolve(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 2)
        with pytest.raises(OperationConflictError, match="nothing else to keep"):
            await one.resolve("stored")
        await one.resolve("served")
        async with journal_of(server) as late:
            await late.open()
            assert served(late) == items(1, 2)


async def test_a_change_that_was_prepared_on_another_past_is_not_made(server: RedisServer) -> None:
    async with journal_of(server) as one, journal_of(server) as other:
        await fork(server, one, other)
        await one.resolve("served")
        with pytest.raises(RevisionConflictError):
            await other.append(stock_entry(4, "item-4"))
        assert (await other.catch_up()).epoch == 1
        assert served(other) == served(one)


async def test_two_replicas_that_both_went_on_from_what_was_put_back_do_not_mix(server: RedisServer) -> None:
    async with journal_of(server) as most, journal_of(server) as lagging:
        await stock(most, 1, 3)
        await lagging.catch_up()
        await stock(most, 4, 4)
        put_back(server, {})
        await lagging.append(stock_entry(4, "another"))
        with pytest.raises(JournalBrokenError):
            await most.catch_up()
        assert served(most) == items(1, 2, 3, 4)
        assert served(lagging) == items(1, 2, 3) | {"another"}


async def test_a_loss_that_is_too_long_ago_to_be_recognised_is_not_put_back(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_journal, "MAX_LINKS", 3)
    async with journal_of(server) as one:
        await stock(one, 1, 2)
        older = copied(server)
        await stock(one, 3, 6)
        put_back(server, older)
        with pytest.raises(JournalBrokenError):
            await one.catch_up()
        await one.resolve("served")
        assert one.problems == []
        assert served(one) == items(1, 2, 3, 4, 5, 6)


async def test_history_links_and_revisions_that_are_gone_are_noticed_or_do_no_harm(server: RedisServer) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 2)
        with server.client as client:
            client.delete(REVISIONS)
        await stock(one, 3, 3)
        with server.client as client:
            client.delete(HISTORY)
        with pytest.raises(JournalBrokenError, match="it has no history, where this replica followed"):
            await one.catch_up()
        await one.resolve("stored")
        assert served(one) == items(1, 2, 3)
        with server.client as client:
            client.delete(HISTORY)
        with pytest.raises(JournalBrokenError, match="it has no history, where this replica followed"):
            await one.catch_up()
        await one.resolve("served")
        assert served(one) == items(1, 2, 3)
        with server.client as client:
            client.delete(LINKS)  # which follow from the rest
        await stock(one, 4, 4)
        assert one.problems == []


async def test_an_empty_redis_is_no_break_for_a_replica_that_has_nothing(server: RedisServer) -> None:
    async with journal_of(server) as one:
        for _ in range(2):
            await one.open()
            assert (one.problems, one.epoch) == ([], 0)
        assert copied(server) == {}
        await stock(one, 1, 1)
        assert served(one) == items(1)


@pytest.mark.parametrize("key", [STREAM, LINKS, HISTORY, SNAPSHOT, REVISIONS])
async def test_a_key_that_holds_something_else_is_reported_and_kept(server: RedisServer, key: str) -> None:
    async with journal_of(server) as one:
        await stock(one, 1, 2)
        with server.client as client:
            client.set(key, "something else")
        with pytest.raises(JournalError, match="WRONGTYPE"):
            await one.append(stock_entry(3, "item-3"))
        with pytest.raises(JournalError, match="WRONGTYPE"):
            await one.catch_up()
        assert 'POST /admin/journal/resolve with {"keep": "served"}' in one.problems[0]
        assert served(one) == items(1, 2)
        await one.resolve("served")
        await stock(one, 3, 3)
        assert one.problems == []
        with server.client as client:
            assert b"something else" in [
                client.get(each) for each in client.keys("*before*") if client.type(each) == b"string"
            ]


async def test_a_fail_over_to_a_server_that_lags_loses_no_change(tmp_path_factory: pytest.TempPathFactory) -> None:
    with sentinel_group(tmp_path_factory.mktemp("sentinel")) as group:
        master, replica = group.servers
        async with journal_of(master, url=group.url) as one, journal_of(master, url=group.url) as other:
            await stock(one, 1, 2)
            with master.client as client:
                client.wait(1, 30_000)
            replica.pause()
            await stock(one, 3, 4)
            await other.open()
            master.kill()
            replica.resume()
            while True:
                try:
                    await other.append(stock_entry(5, "item-5"))
                except JournalError:
                    continue
                break
            await one.catch_up()
            assert served(one) == served(other) == items(1, 2, 3, 4, 5)
            with replica.client as client:
                assert client.hget(REVISIONS, "toys") == b"5"


async def test_a_cluster_holds_a_journal_as_one_server_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        url = f"redis+cluster://{HOST}:{nodes[0].port}"
        async with journal_of(nodes[0], 2, url=url) as one, journal_of(nodes[0], url=url) as other:
            await stock(one, 1, 3)
            await one.catch_up()
            await other.open()
            await stock(other, 4, 4)
            for node in nodes:
                with node.client as client:
                    client.flushall()
            await one.catch_up()
            await other.catch_up()
            assert served(one) == items(1, 2, 3)
            await one.catch_up()
            assert served(one) == served(other) == items(1, 2, 3, 4)
            await one.resolve("served")
            await stock(one, 5, 5)
            await other.catch_up()
            assert served(other) == items(1, 2, 3, 4, 5)
            assert one.problems == other.problems == []
