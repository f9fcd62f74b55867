"""Catalogs and embeddings change while they are served, and whoever asks afterwards sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.live import ASK, AUTHORIZED, Shop, bundle_of, held_shop, ids_of, live_settings, shop_of, two_bundles
from tests.service.test_bad_input import check_problem
from tests.tiny import TINY_LAYOUT

NEW = {"item_id": "new-1", "index": "500", "title": "the new toy", "category": "games", "tags": ["new"], "price": 3.5}
EVERYTHING = {"k": 40, "num_beams": 100, "exclude_history": False}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
async def shop(bundles: Path, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop_of(live_settings(bundles, journal=str(tmp_path / "journal"))) as shop:
        yield shop


async def item(shop: Shop, item_id: str) -> dict[str, Any]:
    page = (await shop.client.get(f"/domains/toys/items?q={item_id}&limit=200")).json()
    (found,) = [each for each in page["items"] if each["item_id"] == item_id]
    return dict(found)


async def test_an_item_out_of_stock_is_in_no_answer_until_it_is_back(shop: Shop) -> None:
    before = await shop.ask()
    best = ids_of(before)[0]
    assert before["catalog_revision"] == 0

    assert await shop.patch(deactivate=[best]) == {"domain": "toys", "catalog_revision": 1}
    without = await shop.ask()
    assert best not in ids_of(without)
    assert ids_of(without)[:4] == ids_of(before)[1:]
    assert without["catalog_revision"] == 1
    assert not (await item(shop, best))["is_active"]
    assert (await shop.client.get("/domains/toys")).json()["catalog_revision"] == 1
    assert best not in ids_of(await shop.ask(include_items=[best, "item-4"], k=2))

    await shop.patch(activate=[best])
    assert (await shop.ask())["items"] == before["items"]


async def test_the_change_is_told_when_no_older_answer_is_to_come(bundles: Path, tmp_path: Path) -> None:
    async with held_shop(live_settings(bundles, journal=str(tmp_path / "journal"))) as (shop, engine):
        best = ids_of(await shop.ask())[0]
        running = await engine.hold(shop)
        change = asyncio.create_task(shop.patch(deactivate=[best]))
        while shop.revision() == 0:  # noqa: ASYNC110  # nobody is told of it so early
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not change.done()
        engine.gate.set()
        await change
        assert running.done()
        assert best in ids_of(await running)
        assert best not in ids_of(await shop.ask())


async def test_columns_are_set_and_filtered_by(shop: Shop) -> None:
    only = {"where": {"category": "sold"}, "exclude_history": False}
    assert (await shop.ask(**only))["items"] == []
    cells = {"title": "another name", "category": "sold", "price": 1, "tags": ["a", "b"], "image": None}
    await shop.patch(set={"item-4": cells})

    (found,) = (await shop.ask(**only))["items"]
    assert (found["item_id"], found["title"], found["image"]) == ("item-4", "another name", None)
    assert found["attributes"] == {"category": "sold", "price": 1.0, "tags": ["a", "b"]}


async def test_a_title_is_in_prompts_as_soon_as_it_is_set(shop: Shop) -> None:
    tell = {"domain": "toys", "item_id": "item-4", "user_id": "u1", "template": "C-1", "max_new_tokens": 8}
    before = (await shop.client.post("/explain", json=tell)).json()["text"]
    await shop.patch(set={"item-4": {"title": "purchase history of the next star"}})
    after = (await shop.client.post("/explain", json=tell)).json()
    assert after["text"] != before
    assert after["catalog_revision"] == 1


async def test_an_added_item_is_answered_as_if_it_had_been_there(shop: Shop, bundles: Path, tmp_path: Path) -> None:
    await shop.patch(add=[NEW | {"active": True}])
    answer = await shop.ask(**EVERYTHING)
    assert "new-1" in ids_of(answer)
    assert (await item(shop, "new-1"))["attributes"] == {"category": "games", "price": 3.5, "tags": ["new"]}
    await shop.until_slots(1)

    grown = tmp_path / "grown"
    bundle_of(grown / "first", 1, catalog=shop.catalog("toys"))
    async with shop_of(live_settings(grown)) as other:
        expected = await other.ask(**EVERYTHING)
    assert ids_of(answer) == ids_of(expected)
    scores = [[each["score"] for each in found["items"]] for found in (answer, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


BAD_CHANGES: list[tuple[dict[str, Any], int, str]] = [
    ({"deactivate": ["nope"]}, 404, "'nope' is not in the catalog"),
    ({"set": {"nope": {"title": "x"}}}, 404, "'nope' is not in the catalog"),
    ({"set": {"item-1": {"price": "cheap"}}}, 422, "set.item-1: a value of price is not of the type double"),
    ({"set": {"item-1": {"index": "9"}}}, 422, "index cannot be set"),
    ({"set": {"item-1": {"colour": "red"}}}, 422, "no column 'colour'; choose from: title, image, category"),
    ({"add": [NEW, {"item_id": "new-2"}]}, 422, "row 2 has no index"),
    ({"add": [NEW | {"index": "5"}]}, 422, "the index '5' of item 'new-1' belongs to another item"),
    ({"add": [NEW | {"item_id": "item-5"}]}, 422, "item 'item-5' is in the catalog already"),
    ({"add": [NEW | {"index": "<pad>"}]}, 422, "<pad>"),
    ({"add": [NEW, NEW | {"index": "501"}]}, 422, "'new-1' occurs in 2 rows"),
    ({"add": [NEW | {"price": [1]}]}, 422, "a value of price is not of the type double"),
    ({"activate": ["item-1"], "deactivate": ["item-1"]}, 422, "'item-1' is in both activate and deactivate"),
    ({}, 422, "the body contains no change"),
    ({"set": {"item-1": {"price": {"a": 1}}}}, 422, "a value must be"),
    ({"expected_revision": 7, "deactivate": ["item-1"]}, 409, "at revision 0, not 7"),
]


async def test_a_bad_change_is_refused_whole(shop: Shop) -> None:
    for change, status, words in BAD_CHANGES:
        with_good_part = {"deactivate": ["item-2"]} | change if change else change
        problem = await shop.patch(status, **with_good_part)
        assert words in problem["detail"], change
    assert shop.revision() == 0
    assert (await item(shop, "item-2"))["is_active"]


async def test_a_revision_may_be_expected_by_header(shop: Shop) -> None:
    async def change(if_match: str) -> httpx.Response:
        headers = AUTHORIZED | {"If-Match": if_match}
        return await shop.client.patch("/admin/domains/toys/catalog", headers=headers, json={"deactivate": ["item-1"]})

    first = await change('"0"')
    assert (first.status_code, first.headers["ETag"]) == (200, '"1"')
    check_problem(await change('"0"'), 409, "revision_conflict")
    assert (await change(first.headers["ETag"])).status_code == 200
    assert (await change("*")).headers["ETag"] == '"3"'
    check_problem(await change("soon"), 422, "invalid_input")
    shown = await shop.client.get("/admin/domains/toys", headers=AUTHORIZED)
    assert shown.headers["ETag"] == '"3"'


async def test_a_change_with_a_key_is_made_once(shop: Shop) -> None:
    first = await shop.patch(deactivate=["item-1"], idempotency_key="a")
    await shop.patch(activate=["item-1"], idempotency_key="b")
    assert await shop.patch(deactivate=["item-1"], idempotency_key="a") == first
    assert (await item(shop, "item-1"))["is_active"]


async def test_a_key_that_comes_back_with_another_change_is_refused(bundles: Path, tmp_path: Path) -> None:
    settings = live_settings(bundles, journal=str(tmp_path / "journal"))
    put = {"features": {"item-11": [1.0] * TINY_LAYOUT.feature_dim}, "idempotency_key": "b"}
    async with shop_of(settings) as shop:
        first = await shop.patch(deactivate=["item-1", "item-2"], idempotency_key="a")
        assert await shop.admin("PUT", "/domains/toys/features", json=put) == {"domain": "toys", "catalog_revision": 2}
    async with shop_of(settings) as shop:
        problem = await shop.patch(409, deactivate=["item-3"], idempotency_key="a")
        assert problem["code"] == "operation_conflict"
        assert "the idempotency key 'a' belongs to another change of 'toys'" in problem["detail"]
        await shop.patch(409, deactivate=["item-3"], idempotency_key="b")
        await shop.admin("PUT", "/domains/toys/features", 409, json=put | {"idempotency_key": "a"})
        assert (await item(shop, "item-3"))["is_active"]
        assert await shop.patch(deactivate=["item-2", "item-1"], idempotency_key="a") == first
        assert (await shop.admin("PUT", "/domains/toys/features", json=put))["catalog_revision"] == 2
        assert shop.revision() == 2


async def test_what_was_changed_holds_in_every_version(shop: Shop) -> None:
    best = ids_of(await shop.ask())[0]
    await shop.load("second")
    await shop.patch(deactivate=[best], add=[NEW])
    await shop.admin("POST", "/domains/toys/swap", json={})
    second = await shop.ask(**EVERYTHING)
    assert best not in ids_of(second)
    assert "new-1" in ids_of(second)
    await shop.patch(activate=[best])
    await shop.admin("POST", "/domains/toys/rollback")
    first = await shop.ask(**EVERYTHING)
    assert best in ids_of(first)
    assert "new-1" in ids_of(first)
    assert (first["catalog_revision"], first["bundle"] != second["bundle"]) == (2, True)


async def test_embeddings_are_put_and_replaced(shop: Shop) -> None:
    row = [0.5 * number for number in range(TINY_LAYOUT.feature_dim)]
    missing = await shop.ask(history=["item-11"])  # which has no embedding
    assert "missing_features" in {each["kind"] for each in missing["degraded"]}
    answer = await shop.admin("PUT", "/domains/toys/features", json={"features": {"item-11": row}})
    assert answer["catalog_revision"] == 1

    found = await shop.ask(history=["item-11"])
    assert "missing_features" not in {each["kind"] for each in found["degraded"]}
    assert [each["score"] for each in found["items"]] != [each["score"] for each in missing["items"]]
    await shop.patch(deactivate=["item-3"])
    assert "missing_features" not in {each["kind"] for each in (await shop.ask(history=["item-11"]))["degraded"]}


BAD_EMBEDDINGS: list[tuple[dict[str, list[float]], int, str]] = [
    ({"item-1": [1.0]}, 422, "has width 1, the model takes 8"),
    ({"nope": [1.0] * 8}, 404, "'nope' is not in the catalog"),
    ({"item-1": [1e300] * 8}, 422, "outside of the float32 range"),
    ({}, 422, "at least 1 item"),
]


async def test_bad_embeddings_are_refused(shop: Shop) -> None:
    for features, status, words in BAD_EMBEDDINGS:
        problem = await shop.admin("PUT", "/domains/toys/features", status, json={"features": features})
        assert words in problem["detail"], features
    assert shop.revision() == 0


async def test_a_canary_gets_its_share_of_the_users_and_the_same_ones_every_time(shop: Shop) -> None:
    users = [f"user-{number}" for number in range(40)]
    version = (await shop.load("second"))["versions"][-1]["version"]
    await shop.admin("POST", "/domains/toys/canary", json={"version": version, "share": 0.4, "salt": "autumn"})
    assert await shop.versions() == {"stable": (await shop.versions())["stable"], "canary": version}

    async def who() -> list[str]:
        return [user for user in users if (await shop.ask(user_id=user, k=1))["bundle"][:12] == version[:12]]

    chosen = await who()
    assert 5 < len(chosen) < 30
    assert await who() == chosen
    samples = await shop.metrics("vip5_version_requests_total")
    assert (
        f'vip5_version_requests_total{{domain="toys",role="canary",version="{version}"}} {2.0 * len(chosen)}' in samples
    )
    await shop.admin(
        "POST", "/domains/toys/canary", 409, json={"version": (await shop.versions())["stable"], "share": 1}
    )
    await shop.admin("POST", "/domains/toys/canary/promote")
    assert (await shop.versions())["stable"] == version
    assert len(await who()) == len(users)
    await shop.admin("DELETE", "/domains/toys/canary", 409)


async def test_a_canary_that_ends_leaves_nothing(shop: Shop) -> None:
    version = (await shop.load("second"))["versions"][-1]["version"]
    await shop.admin("POST", "/domains/toys/canary", json={"version": version, "share": 1.0})
    assert (await shop.ask())["bundle"].startswith(version[:12])
    await shop.admin("DELETE", "/domains/toys/canary")
    assert not (await shop.ask())["bundle"].startswith(version[:12])
    await shop.until_slots(1)


async def test_a_shadow_is_compared_and_never_seen(shop: Shop) -> None:
    first = (await shop.ask())["bundle"]
    version = (await shop.load("second"))["versions"][-1]["version"]
    await shop.admin("POST", "/domains/toys/shadow", json={"version": version})
    assert (await shop.ask())["bundle"] == first
    async with asyncio.timeout(30):
        while 'vip5_shadow_overlap_ratio_count{domain="toys"} 1.0' not in await shop.metrics():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert f'vip5_version_requests_total{{domain="toys",role="shadow",version="{version}"}} 1.0' in await shop.metrics()
    await shop.admin("DELETE", "/domains/toys/shadow")
    await shop.until_slots(1)
    assert (await shop.client.post("/recommend/sequential", json=ASK)).status_code == 200


async def test_a_catalog_that_was_changed_is_so_after_a_restart(bundles: Path, tmp_path: Path) -> None:
    settings = live_settings(bundles, journal=str(tmp_path / "journal"))
    async with shop_of(settings) as shop:
        best = ids_of(await shop.ask())[0]
        await shop.patch(deactivate=[best])
        before = await shop.ask()
    async with shop_of(settings) as shop:
        assert (await shop.ask())["items"] == before["items"]
        assert list(await shop.versions()) == ["stable"]
        await shop.admin("DELETE", "/domains/toys", 204)
    async with shop_of(settings) as shop:
        assert (await shop.client.get("/domains")).json() == {"domains": []}
