"""Replicas that share a journal in Redis come to serve the same, whatever happens to Redis or to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from service.errors import RevisionConflictError
from tests.e2e.journals import REVISIONS, STREAM, copied, journal_of, put_back, stock, toys
from tests.e2e.live import live_bundles
from tests.redis_servers import RedisServer
from tests.service.live import Shop, ids_of, live_settings, shop_of
from tests.unit.versions.entries import stock_entry

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundles(tmp_path_factory.mktemp("live"), ("first", "second"))


@asynccontextmanager
async def replica_of(bundles: Path, server: RedisServer) -> AsyncIterator[Shop]:
    redis_url = SecretStr(server.url)
    async with shop_of(live_settings(bundles, journal="redis", redis_url=redis_url, service_id="shop")) as shop:
        yield shop


async def until_same(one: Shop, other: Shop) -> None:
    """Wait until two replicas serve the same versions of the same catalog."""

    async def shown(shop: Shop) -> tuple[Any, ...]:
        body = await shop.admin("GET", "/domains/toys")
        roles = [(each["version"], each["roles"], each["num_active_items"]) for each in body["versions"]]
        return body["catalog_revision"], roles, body["canary"]

    async with asyncio.timeout(PATIENCE_S):
        while await shown(one) != await shown(other):  # noqa: ASYNC110  # replicas are asked as operators ask
            await asyncio.sleep(0.01)


async def test_replicas_follow_each_other_and_a_new_one_begins_where_they_are(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server) as one, replica_of(bundles, server) as other:
        best = ids_of(await one.ask())[0]
        await one.patch(deactivate=[best])
        await until_same(one, other)
        assert best not in ids_of(await other.ask())

        await other.load("second", activate=True)
        await until_same(one, other)
        assert (await one.ask())["items"] == (await other.ask())["items"]
        await one.admin("POST", "/domains/toys/rollback")
        await until_same(one, other)

        async with replica_of(bundles, server) as third:
            await until_same(one, third)
            assert best not in ids_of(await third.ask())


async def test_of_two_changes_at_once_both_are_made_unless_one_expects_what_is_no_more(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server) as one, replica_of(bundles, server) as other:
        changes = [shop.patch(deactivate=[f"item-{number}"]) for number in range(1, 7) for shop in (one, other)]
        revisions = [answer["catalog_revision"] for answer in await asyncio.gather(*changes)]
        assert sorted(revisions) == list(range(1, 13))
        await until_same(one, other)

        async def expecting(shop: Shop) -> int:
            response = await shop.client.patch(
                "/admin/domains/toys/catalog",
                headers={"Authorization": "Bearer open-sesame-open-sesame"},
                json={"deactivate": ["item-8"], "expected_revision": 12},
            )
            return response.status_code

        assert sorted(await asyncio.gather(expecting(one), expecting(other))) == [200, 409]
        await until_same(one, other)


async def test_without_redis_what_was_served_is_served_and_nothing_can_be_changed(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server) as one:
        await one.patch(deactivate=["item-1"])
        server.kill()
        try:
            problem = await one.patch(503, deactivate=["item-2"])
            assert problem["code"] == "journal_unavailable"
            assert (await one.ask())["catalog_revision"] == 1
            async with asyncio.timeout(PATIENCE_S):
                while not (await one.client.get("/health/ready")).json()["degraded"]:  # noqa: ASYNC110  # a probe polls
                    await asyncio.sleep(0.01)
            async with replica_of(bundles, server) as late:
                ready = await late.client.get("/health/ready")
                assert ready.status_code == 200
                assert "stores the journal, does not answer" in str(ready.json()["degraded"])
        finally:
            server.start()


async def until_degraded(shop: Shop, words: str) -> None:
    """Wait until a probe says so, or, without words, until it has nothing to say."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            problems = str((await shop.client.get("/health/ready")).json()["degraded"])
            if words in problems if words else problems == "[]":
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["empty", "older"])
async def test_a_redis_that_goes_back_in_time_gets_back_what_the_replicas_have(
    bundles: Path, server: RedisServer, way: str
) -> None:
    async with replica_of(bundles, server) as one, replica_of(bundles, server) as other:
        best, _, second, *_ = ids_of(await one.ask())
        await one.patch(deactivate=[best])
        older = copied(server)
        await other.patch(deactivate=[second])
        put_back(server, older if way == "older" else {})
        async with asyncio.timeout(PATIENCE_S):
            with server.client as client:
                while client.hget(REVISIONS, "toys") != b"2":  # noqa: ASYNC110  # Redis is asked as operators ask
                    await asyncio.sleep(0.01)
        await until_same(one, other)
        for shop in (one, other):
            await until_degraded(shop, "")
            assert not {best, second} & set(ids_of(await shop.ask(k=30)))
            await shop.patch(deactivate=["item-40"])
        await until_same(one, other)
        breaks = [await shop.metrics('vip5_journal_breaks_total{kind="behind"}') for shop in (one, other)]
        assert sum(float(each.split()[-1]) for each in breaks) == 1
        async with replica_of(bundles, server) as late:
            await until_same(one, late)
            assert not {best, second} & set(ids_of(await late.ask(k=30)))


@pytest.mark.parametrize("keep", ["served", "stored"])
async def test_of_two_histories_one_goes_on_when_an_operator_has_decided(
    bundles: Path, server: RedisServer, keep: str
) -> None:
    async with journal_of(server) as journal:
        await stock(journal, 1, 1)
        theirs = copied(server)
        put_back(server, {})
    async with replica_of(bundles, server) as one, replica_of(bundles, server) as other:
        best = ids_of(await one.ask())[0]
        await one.patch(deactivate=[best])
        await other.load("second", activate=True)
        await until_same(one, other)
        put_back(server, theirs)
        for shop in (one, other):
            await until_degraded(shop, "POST /admin/journal/resolve")
            assert await shop.metrics("vip5_journal_broken") == "vip5_journal_broken 1.0"
            problem = await shop.patch(503, deactivate=["item-2"])
            assert problem["code"] == "journal_broken"
            assert best not in ids_of(await shop.ask())
            assert (await shop.admin("GET", "/domains"))["journal"]["is_broken"]

        body = await one.admin("POST", "/journal/resolve", json={"keep": keep})
        assert body == {"kind": "redis", "problems": [], "is_broken": False, "num_unread": 0}
        await until_degraded(other, "")
        await until_same(one, other)
        gone = best if keep == "served" else "item-1"
        async with replica_of(bundles, server) as late:
            await until_same(one, late)
            for shop in (one, other, late):
                catalog = shop.catalog("toys")
                assert [each for each in (best, "item-1") if not catalog.is_active[catalog.row_of(each)]] == [gone]
                assert ("previous" in await shop.versions()) == (keep == "served")
                assert await shop.metrics("vip5_journal_broken") == "vip5_journal_broken 0.0"
            await other.patch(deactivate=["item-2"])
            await until_same(one, other)


async def test_what_others_write_to_redis_stops_no_replica(bundles: Path, server: RedisServer) -> None:
    async with replica_of(bundles, server) as one, replica_of(bundles, server) as other:
        with server.client as client:
            junk = client.xadd(STREAM, {"wrong": "field"})
        best = ids_of(await one.ask())[0]
        await one.patch(deactivate=[best])
        await until_same(one, other)
        assert best not in ids_of(await other.ask())
        for shop in (one, other):
            await until_degraded(shop, "has 1 entry that cannot be read")
            assert await shop.metrics("vip5_journal_unread") == "vip5_journal_unread_entries 1.0"
        with server.client as client:
            client.xdel(STREAM, junk)
        for shop in (one, other):
            await until_degraded(shop, "")


async def test_a_snapshot_stands_for_what_was_trimmed(server: RedisServer) -> None:
    async with journal_of(server, 5) as writer, journal_of(server) as follower:
        await writer.open()
        await writer.append(stock_entry(1, "item-1"))
        assert toys(await follower.open()).revision == 1
        for revision in range(2, 13):
            await writer.append(stock_entry(revision, f"item-{revision}"))
            await writer.catch_up()
        with server.client as client:
            assert client.xlen("vip5:{shop}:journal") < 12

        states = toys((await follower.catch_up()).states)
        assert states.revision == 12
        assert len(states.changes.active) == 12
        async with journal_of(server) as late:
            assert toys(await late.open()) == states


async def test_only_the_first_of_two_entries_with_one_revision_is_kept(server: RedisServer) -> None:
    async with journal_of(server) as one, journal_of(server) as other:
        await one.append(stock_entry(1, "a"))
        with pytest.raises(RevisionConflictError):
            await other.append(stock_entry(1, "b"))
        with pytest.raises(RevisionConflictError):
            await other.append(stock_entry(3, "b"))
        assert set(toys((await other.catch_up()).states).changes.active) == {"a"}


async def test_an_entry_that_cannot_be_read_is_passed_over(server: RedisServer) -> None:
    async with journal_of(server) as journal:
        await journal.append(stock_entry(1, "a"))
        with server.client as client:
            client.xadd("vip5:{shop}:journal", {"entry": "garbage"})
        await journal.append(stock_entry(2, "b"))
        assert toys(await journal.open()).revision == 2
