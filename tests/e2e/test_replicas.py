"""Replicas say in Redis what they serve, and a change can wait until all of them serve it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from service.http.app_state import state_of
from service.settings.settings import Settings
from service.versions.members import Identity, Report, encode_report
from tests.e2e.live import live_bundles
from tests.redis_servers import RedisServer
from tests.service.live import Shop, held_shop, ids_of, live_settings, shop_of

PATIENCE_S = 60.0
LONG_S = 60.0
"""A lease that ends in no test."""
SHORT_S = 2.0
SECRET = "a secret of the tests"
ALL: dict[str, Any] = {"params": {"wait": "all", "timeout_s": PATIENCE_S}}
IN_AN_HOUR: dict[str, Any] = {"params": {"wait": "all", "timeout_s": 3600}}
AT_ONCE: dict[str, Any] = {"params": {"wait": "all", "timeout_s": 0.05}}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundles(tmp_path_factory.mktemp("live"), ("first", "second"))


def settings_of(bundles: Path, server: RedisServer, name: str, **others: Any) -> Settings:  # noqa: ANN401  # settings
    shared = {"journal": "redis", "redis_url": SecretStr(server.url), "service_id": "shop", "replica_lease_s": LONG_S}
    return live_settings(bundles, replica_name=name, **shared | others)


@asynccontextmanager
async def replica_of(bundles: Path, server: RedisServer, name: str, **others: Any) -> AsyncIterator[Shop]:  # noqa: ANN401
    async with shop_of(settings_of(bundles, server, name, **others)) as shop:
        yield shop


async def replicas(shop: Shop) -> dict[str, dict[str, Any]]:
    """What a replica says of all, by name."""
    return {each["name"]: each for each in (await shop.admin("GET", "/replicas"))["replicas"]}


async def until_state(shop: Shop, name: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while (found := (await replicas(shop)).get(name)) is None or found["state"] != state:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


async def until_behind(shop: Shop, duration_s: float) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while float((await shop.metrics("vip5_journal_behind")).split()[1]) < duration_s:  # noqa: ASYNC110  # as scraped
            await asyncio.sleep(0.01)


def pause_following(shop: Shop) -> asyncio.Lock:
    """The lock of the domain: while it is held, no change by others is served."""
    return state_of(shop.app).service.administration.replica._locks["toys"]


async def test_replicas_list_each_other_with_what_they_serve(bundles: Path, server: RedisServer) -> None:
    async with replica_of(bundles, server, "one") as one, replica_of(bundles, server, "other") as other:
        await one.admin("PATCH", "/domains/toys/catalog", json={"deactivate": ["item-1"]}, **ALL)
        for shop, name in ((one, "one"), (other, "other")):
            listed = await replicas(shop)
            assert [(each["name"], each["state"], each["revisions"]) for each in listed.values()] == [
                (name, "serving", {"toys": 1}),
                ({"one": "other", "other": "one"}[name], "serving", {"toys": 1}),
            ]
            assert [each["is_self"] for each in listed.values()] == [True, False]
    async with replica_of(bundles, server, "late") as late:
        assert list(await replicas(late)) == ["late"], "those that ended have given up their leases"


async def test_without_redis_a_replica_is_alone_and_a_change_waits_for_nobody(bundles: Path, tmp_path: Path) -> None:
    async with shop_of(live_settings(bundles, journal=str(tmp_path / "journal"), replica_name="only")) as shop:
        await shop.admin("PATCH", "/domains/toys/catalog", json={"deactivate": ["item-1"]}, **AT_ONCE)
        answer = await shop.admin("GET", "/replicas")
        (only,) = answer["replicas"]
        assert (only["name"], only["state"], only["is_self"]) == ("only", "serving", True)
        assert only["revisions"] == answer["revisions"] == {"toys": 1}
        assert await shop.metrics("vip5_journal_behind") == "vip5_journal_behind_seconds 0.0"


async def test_after_a_change_that_waited_for_all_none_answers_from_what_was_before(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server, "one") as one, replica_of(bundles, server, "other") as other:
        for _ in range(5):
            best = ids_of(await other.ask())[0]
            await one.admin("PATCH", "/domains/toys/catalog", json={"deactivate": [best]}, **ALL)
            assert best not in ids_of(await other.ask())
        await one.admin("POST", "/domains/toys/load", json={"bundle": "second", "activate": True}, **ALL)
        assert await other.versions() == await one.versions()
        await other.admin("POST", "/domains/toys/rollback", **ALL)
        assert await other.versions() == await one.versions()
        boosts = {"columns": {"category": {"dolls": 2.0}}}
        await one.admin("PUT", "/domains/toys/boosts", json=boosts, **ALL)
        assert (await other.admin("GET", "/domains/toys/boosts"))["columns"] == boosts["columns"]
        await one.admin("DELETE", "/domains/toys", status=204, **ALL)
        await other.is_unknown("toys")


async def test_a_change_names_the_replicas_that_do_not_serve_it_in_time_and_is_made(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server, "one") as one, replica_of(bundles, server, "slow") as slow:
        best = ids_of(await one.ask())[0]
        change: dict[str, Any] = {"json": {"deactivate": [best], "idempotency_key": "once"}}
        async with pause_following(slow):
            problem = await one.admin("PATCH", "/domains/toys/catalog", 504, **change, **AT_ONCE)
            assert best not in ids_of(await one.ask())
            assert best in ids_of(await slow.ask())
        assert problem["code"] == "replicas_differ"
        assert "slow" in problem["detail"]
        ((error,)) = problem["errors"]
        assert error["field"] == "replicas.slow"
        assert error["code"] in {"loading", "behind"}
        again = await one.admin("PATCH", "/domains/toys/catalog", **change, **ALL)
        assert again["catalog_revision"] == 1, "the same change, which is waited for again"
        assert best not in ids_of(await slow.ask())


async def test_a_replica_that_cannot_serve_a_change_is_named_at_once_with_the_reason(
    bundles: Path, server: RedisServer, tmp_path: Path
) -> None:
    settings = settings_of(bundles, server, "bare").model_copy(update={"bundles_root": tmp_path})
    async with replica_of(bundles, server, "one") as one, shop_of(settings) as bare:
        load = {"json": {"bundle": "second", "activate": True}}
        async with asyncio.timeout(PATIENCE_S):  # the time limit is not waited for
            problem = await one.admin("POST", "/domains/toys/load", 504, **load, **IN_AN_HOUR)
        assert "there is no bundle 'second'" in problem["errors"][0]["message"]
        assert problem["errors"][0]["code"] == "failed"
        failed = (await replicas(one))["bare"]
        assert failed["state"] == "failed"
        assert failed["behind_since"] is not None
        own = (await replicas(bare))["bare"]
        assert "there is no bundle 'second'" in own["reason"]
        shutil.copytree(bundles / "second", tmp_path / "second")
        await one.admin("POST", "/domains/toys/rollback", **ALL)
        assert (await replicas(one))["bare"]["state"] == "serving"


async def test_an_answer_that_began_before_a_change_is_waited_for_on_all_replicas(
    bundles: Path, server: RedisServer
) -> None:
    async with (
        replica_of(bundles, server, "one") as one,
        held_shop(settings_of(bundles, server, "busy")) as (busy, engine),
    ):
        running = await engine.hold(busy)
        problem = await one.admin("PATCH", "/domains/toys/catalog", 504, json={"deactivate": ["item-1"]}, **AT_ONCE)
        assert problem["errors"][0]["field"] == "replicas.busy"
        engine.gate.set()
        await running
        await until_state(one, "busy", "serving")


async def no_word(_: str) -> None:
    pass


async def test_a_replica_that_ends_without_a_word_is_waited_for_until_its_lease_ends(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server, "one", replica_lease_s=SHORT_S) as one:
        await one.patch(deactivate=["item-1"])
        async with replica_of(bundles, server, "gone", replica_lease_s=SHORT_S) as gone:
            membership = state_of(gone.app).service.administration.membership
            membership._stored.leave = no_word  # type: ignore[attr-defined]  # as if it had been killed
            await until_state(one, "gone", "serving")
        await one.admin("PATCH", "/domains/toys/catalog", json={"deactivate": ["item-2"]}, **ALL)
        lost = (await replicas(one))["gone"]
        assert lost["state"] == "lost"
        assert lost["heartbeat_age_s"] > SHORT_S
        assert lost["behind_since"] is not None


async def test_without_redis_the_others_are_not_known_and_a_change_is_not_made(
    bundles: Path, server: RedisServer
) -> None:
    async with replica_of(bundles, server, "one", max_lag_s=1.0, replica_lease_s=SHORT_S) as one:
        await one.patch(deactivate=["item-1"])
        server.kill()
        try:
            problem = await one.admin("PATCH", "/domains/toys/catalog", 503, json={"deactivate": ["item-2"]}, **ALL)
            assert problem["code"] == "journal_unavailable"
            listed = await one.admin("GET", "/replicas")
            assert [each["name"] for each in listed["replicas"]] == ["one"]
            assert "does not answer" in listed["problem"]
            async with asyncio.timeout(PATIENCE_S):
                while (ready := await one.client.get("/health/ready")).status_code != 503:  # noqa: ASYNC110  # a probe
                    await asyncio.sleep(0.01)
            assert "VIP5_MAX_LAG_S is 1" in str(ready.json()["reasons"])
            refused = await one.client.post("/recommend/sequential", json={"domain": "toys", "history": ["item-1"]})
            assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
            await until_behind(one, 1.0)
        finally:
            server.start()
        async with asyncio.timeout(PATIENCE_S):
            while (await one.client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110  # a probe
                await asyncio.sleep(0.01)


async def test_without_a_limit_a_replica_stays_ready_while_redis_is_gone(bundles: Path, server: RedisServer) -> None:
    async with replica_of(bundles, server, "one", replica_lease_s=1.0) as one:
        server.kill()
        try:
            await until_behind(one, 1.5)
            assert (await one.client.get("/health/ready")).status_code == 200
            await one.ask()
        finally:
            server.start()


async def test_a_token_that_may_only_change_stock_does_not_see_the_replicas(bundles: Path, server: RedisServer) -> None:
    async with replica_of(bundles, server, "one") as one:
        assert (await one.client.get("/admin/replicas")).status_code == 401
        wrong = {"params": {"timeout_s": 1}}
        problem = await one.admin("PATCH", "/domains/toys/catalog", 422, json={"deactivate": ["item-1"]}, **wrong)
        assert "wait=all" in problem["detail"]
        assert one.revision() == 0, "what cannot be understood changes nothing"


async def test_what_others_write_counts_as_no_replica_where_replicas_sign(bundles: Path, server: RedisServer) -> None:
    secret = SecretStr(SECRET)
    forged = Report(Identity("forged", "forged", "host", 1, "0.1.0", 0.0), "", {})
    async with (
        replica_of(bundles, server, "one", signing_secret=secret) as one,
        replica_of(bundles, server, "other", signing_secret=secret),
    ):
        with server.client as client:
            client.hset("vip5:{shop}:replicas", "forged", encode_report(forged, None))
            client.zadd("vip5:{shop}:leases", {"forged": time.time() * 1000})
        await one.admin("PATCH", "/domains/toys/catalog", json={"deactivate": ["item-1"]}, **ALL)
        listed = await one.admin("GET", "/replicas")
        assert [each["name"] for each in listed["replicas"]] == ["one", "other"]
        assert "not signed" in listed["problem"]
