"""Boosts and limits of requests and of domains over HTTP, with everything else that changes what is ranked."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.live import Shop, ids_of, live_settings, shop_of, two_bundles
from tests.service.test_bad_input import check_problem

BOOSTS = "/domains/toys/boosts"
GAMES: dict[str, Any] = {"columns": {"category": {"games": 30.0}}}
ALL: dict[str, Any] = {"k": 40, "num_beams": 100, "exclude_history": False}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
async def shop(bundles: Path, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop_of(live_settings(bundles, journal=str(tmp_path / "journal"))) as shop:
        yield shop


def expected(plain: dict[str, Any], factor: float = 30.0, category: str = "games") -> list[tuple[str, float]]:
    """Items and boosted scores, best first, if one category has a factor."""
    scores = {
        item["item_id"]: item["score"] + math.log(factor) * (item["attributes"]["category"] == category)
        for item in plain["items"]
    }
    return sorted(scores.items(), key=lambda each: -each[1])


def found(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(item["item_id"], pytest.approx(item["boosted_score"], abs=1e-4)) for item in answer["items"]]


async def test_a_boost_orders_the_items_and_leaves_the_models_scores_alone(shop: Shop) -> None:
    plain = await shop.ask(**ALL)
    assert "boosted_score" not in plain["items"][0]
    boosted = await shop.ask(**ALL, boost=GAMES)
    assert found(boosted) == expected(plain)
    scores = {item["item_id"]: item["score"] for item in plain["items"]}
    assert {item["item_id"]: item["score"] for item in boosted["items"]} == pytest.approx(scores, abs=1e-4)
    assert boosted["exact_prefix"] == len(boosted["items"])
    best = await shop.ask(k=3, boost={"items": {"item-7": 1e6, "item-999": 2}}, where={"category": ["games", "dolls"]})
    assert ids_of(best)[0] == "item-7"
    assert "unknown_items" in {each["kind"] for each in best["degraded"]}


async def test_limits_are_kept_and_an_answer_that_they_leave_short_says_so(shop: Shop) -> None:
    full = await shop.ask(k=6, max_per={"category": 2}, exactness="certified")
    assert set(Counter(item["attributes"]["category"] for item in full["items"]).values()) == {2}
    assert full["exact_prefix"] == 6
    short = await shop.ask(k=4, num_beams=4, max_per={"category": 1})
    assert len(short["items"]) < 4
    (told,) = [each["detail"] for each in short["degraded"] if each["kind"] == "limits_unfilled"]
    assert told == (
        f"max_per leaves {len(short['items'])} of k = 4 items of those that 4 beams found; raise num_beams, or send "
        "exactness certified"
    )
    certified = await shop.ask(k=4, num_beams=4, max_per={"category": 1}, exactness="certified")
    assert len(certified["items"]) == 3
    assert all(each["kind"] != "limits_unfilled" for each in certified["degraded"]), "there are three categories"


async def test_what_steers_a_list_is_counted(shop: Shop) -> None:
    before = await steered(shop)
    await shop.ask()
    await shop.ask(boost=GAMES, max_per={"category": 2})
    await shop.admin("PUT", BOOSTS, json={"columns": {"category": {"dolls": 2.0}}})
    await shop.ask()
    await shop.ask(boost=GAMES, domain_boosts=False)
    assert await steered(shop) - before == {"boost": 2, "max_per": 1, "domain_boosts": 1}


async def steered(shop: Shop) -> Counter[str]:
    """Steered answers by what steered them."""
    lines = (await shop.client.get("/metrics")).text.splitlines()
    found = (re.fullmatch(r'vip5_steered_requests_total\{by="(\w+)"\} (\d+)\.0', line) for line in lines)
    return Counter({each[1]: int(each[2]) for each in found if each is not None})


async def test_candidates_that_are_asked_about_have_boosts_and_limits(shop: Shop) -> None:
    body = {
        "domain": "toys",
        "user_id": "u1",
        "template": "B-1",
        "candidates": ["item-1", "item-2", "item-3", "item-4"],
    }
    plain = (await shop.client.post("/recommend/direct", json=body)).json()
    scores = {item["item_id"]: item["score"] for item in plain["items"]}
    more = {"boost": {"items": {"item-3": 0.5}}, "max_per": {"category": 1}}
    answer = (await shop.client.post("/recommend/direct", json=body | more)).json()
    assert sorted(item["attributes"]["category"] for item in answer["items"]) == ["dolls", "games", "puzzles"]
    for item in answer["items"]:
        factor = 0.5 if item["item_id"] == "item-3" else 1.0
        assert item["boosted_score"] == pytest.approx(scores[item["item_id"]] * factor, rel=1e-4)
    assert [item["boosted_score"] for item in answer["items"]] == sorted(
        (item["boosted_score"] for item in answer["items"]), reverse=True
    )


async def test_the_domains_boosts_are_kept_and_apply_to_all_who_do_not_decline_them(
    shop: Shop,
) -> None:
    plain = await shop.ask(**ALL)
    put = await shop.admin("PUT", BOOSTS, json=GAMES | {"idempotency_key": "k"})
    assert put == {"domain": "toys", "catalog_revision": 1, "columns": GAMES["columns"], "items": {}}
    assert await shop.admin("GET", BOOSTS) == put
    assert (await shop.admin("GET", "/domains/toys"))["boosts"] == {"num_values": 1, "num_items": 0}
    ruled = await shop.ask(**ALL)
    assert (found(ruled), ruled["catalog_revision"]) == (expected(plain), 1)
    assert (await shop.ask(**ALL, domain_boosts=False))["items"] == plain["items"]
    assert found(await shop.ask(**ALL, boost=GAMES)) == expected(plain, 900.0)

    best = ids_of(ruled)[0]
    await shop.patch(deactivate=[best])
    assert found(await shop.ask(**ALL)) == [each for each in expected(plain) if each[0] != best]
    await shop.admin("DELETE", BOOSTS)
    without = await shop.ask(**ALL)
    assert without["items"][0].keys() == plain["items"][0].keys()
    assert without["catalog_revision"] == 3
    await shop.admin("PUT", BOOSTS, json=GAMES, headers={"If-Match": '"2"'}, status=409)


async def test_the_domains_boosts_are_there_after_a_restart(bundles: Path, tmp_path: Path) -> None:
    settings = live_settings(bundles, journal=str(tmp_path / "journal"))
    async with shop_of(settings) as shop:
        await shop.admin("PUT", BOOSTS, json={"items": {"item-7": 1e6}})
        assert ids_of(await shop.ask())[0] == "item-7"
    async with shop_of(settings) as shop:
        assert ids_of(await shop.ask())[0] == "item-7"
        assert (await shop.admin("GET", BOOSTS))["items"] == {"item-7": 1e6}


async def test_a_canary_follows_the_domains_boosts(shop: Shop) -> None:
    await shop.load("second")
    loaded = (await shop.versions())["loaded"]
    await shop.admin("POST", "/domains/toys/canary", json={"version": loaded, "share": 0.01})
    plain = await shop.ask(**ALL, role="canary")
    await shop.admin("PUT", BOOSTS, json=GAMES)
    assert found(await shop.ask(**ALL, role="canary")) == expected(plain)


NONSENSE: list[tuple[dict[str, Any], str, str]] = [
    ({"boost": {"columns": {"brand": {"x": 2}}}}, "unknown_column", "boost.columns.brand: the catalog has no column"),
    ({"boost": {"items": {"item-1": 0}}}, "invalid_input", "items.item-1: a factor must be a number from 1e-06"),
    ({"boost": {"items": {f"i{n}": 2 for n in range(1001)}}}, "invalid_input", "1001 items, the limit is 1000"),
    ({"boost": {"category": {"games": 2}}}, "invalid_input", "boost.category"),
    ({"max_per": {"category": 0}}, "invalid_input", "max_per.category"),
    ({"max_per": {"brand": 2}}, "unknown_column", "max_per.brand: the catalog has no column 'brand'; choose from"),
]


async def test_what_makes_no_sense_is_refused_with_the_rule(shop: Shop) -> None:
    for fields, code, reason in NONSENSE:
        body = {"domain": "toys", "history": ["item-1"]} | fields
        problem = check_problem(await shop.client.post("/recommend/sequential", json=body), 422, code)
        assert reason in str(problem)


async def test_rules_that_the_catalog_does_not_understand_change_nothing(shop: Shop) -> None:
    await shop.admin("PUT", BOOSTS, json={"items": {"gone": 2}}, status=404)
    await shop.admin("PUT", BOOSTS, json={"columns": {"brand": {"x": 2}}}, status=422)
    assert (await shop.admin("GET", BOOSTS))["catalog_revision"] == 0
