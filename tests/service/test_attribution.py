"""Reasons of recommendations: each effect is what a second request without that item, or its picture, would show."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.engine.names import EngineName
from model.engine.plans import AttributionPlan, ScoringPlan
from model.engine.protocol import LogProbs, Timings
from model.planning.runtime import Runtime
from service.http.app import create_app
from service.settings.settings import Settings
from tests.engines import DisguisedEngine
from tests.service.conftest import client_of

HISTORY = ["item-3", "item-14", "item-3", "item-27"]
ASK: dict[str, Any] = {"domain": "toys", "history": HISTORY, "k": 3, "length_penalty": 0}
CANDIDATES = ["item-3", "item-14", "item-27"]
ENGINES: tuple[EngineName, ...] = ("torch", "onnx", "graphs-float32")
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    name: EngineName = request.param
    return name


@pytest.fixture
async def shop(bundle: Path, engine: EngineName) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(Settings(bundle=bundle, engine=engine, num_threads=1))) as client:
        yield client


async def asked(client: httpx.AsyncClient, body: dict[str, Any], task: str = "sequential") -> dict[str, Any]:
    response = await client.post(f"/recommend/{task}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def kinds_of(answer: dict[str, Any]) -> list[str]:
    """How the answer is degraded, besides what every answer to ASK is."""
    return [each["kind"] for each in answer["degraded"] if each["kind"] not in {"anonymous_user", "untrained_model"}]


def without(history: list[str], item_id: str) -> list[str]:
    return [each for each in history if each != item_id]


async def test_effects_are_what_another_request_without_the_part_shows(shop: httpx.AsyncClient) -> None:
    answer = await asked(shop, ASK | {"attribution": 100})

    assert len(answer["items"]) == 3
    for item in answer["items"]:
        parts = {(reason["item_id"], reason["part"]): reason["effect"] for reason in item["because"]}
        assert parts.keys() == {(each, part) for each in HISTORY for part in ("item", "image")}
        assert list(parts.values()) == sorted(parts.values(), reverse=True)
        alone = ASK | {"include_items": [item["item_id"]], "exclude_history": False}
        for (item_id, part), effect in parts.items():
            lacking = {"history": without(HISTORY, item_id)} if part == "item" else {"mask_images": [item_id]}
            (found,) = (await asked(shop, alone | lacking))["items"]
            assert effect == pytest.approx(item["score"] - found["score"], abs=TOLERANCE)


async def test_every_engine_finds_the_same_effects(bundle: Path) -> None:
    found = []
    for engine in ENGINES:
        async with client_of(create_app(Settings(bundle=bundle, engine=engine, num_threads=1))) as client:
            answer = await asked(client, ASK | {"attribution": 100})
        effects = {
            (item["item_id"], reason["item_id"], reason["part"]): reason["effect"]
            for item in answer["items"]
            for reason in item["because"]
        }
        found.append(effects)

    assert found[1] == pytest.approx(found[0], abs=TOLERANCE)
    assert found[2] == pytest.approx(found[0], abs=TOLERANCE)


async def test_candidates_have_effects_on_each_other(shop: httpx.AsyncClient) -> None:
    ask = {"domain": "toys", "candidates": CANDIDATES, "k": 3, "template": "B-5", "length_penalty": 0}
    answer = await asked(shop, ask | {"attribution": 100}, "direct")

    for item in answer["items"]:
        parts = {(reason["item_id"], reason["part"]): reason["effect"] for reason in item["because"]}
        assert len(parts) == 5
        assert (item["item_id"], "item") not in parts
        for (item_id, part), effect in parts.items():
            lacking = {"candidates": without(CANDIDATES, item_id)} if part == "item" else {"mask_images": [item_id]}
            found = {each["item_id"]: each for each in (await asked(shop, ask | lacking, "direct"))["items"]}
            assert effect == pytest.approx(item["score"] - found[item["item_id"]]["score"], abs=TOLERANCE)


async def test_yes_or_no_has_effects_on_the_probability_of_yes(shop: httpx.AsyncClient) -> None:
    direct = {"domain": "toys", "candidates": CANDIDATES, "k": 2, "template": "B-1", "attribution": 9}
    listed = {"domain": "toys", "history": HISTORY, "include_items": CANDIDATES, "exclude_history": False, "k": 2}
    for item in (await asked(shop, direct, "direct"))["items"]:
        assert [(reason["item_id"], reason["part"]) for reason in item["because"]] == [(item["item_id"], "image")]
    for item in (await asked(shop, listed | {"template": "A-7", "attribution": 9}))["items"]:
        parts = {(reason["item_id"], reason["part"]): reason["effect"] for reason in item["because"]}
        lacking = {"history": without(HISTORY, "item-3"), "template": "A-7", "k": 3}
        found = {each["item_id"]: each for each in (await asked(shop, listed | lacking))["items"]}
        ratio = item["score"] / found[item["item_id"]]["score"]
        assert parts["item-3", "item"] == pytest.approx(math.log(ratio), abs=TOLERANCE)


async def test_without_pictures_there_are_no_reasons_in_pictures(client: httpx.AsyncClient) -> None:
    answer = await asked(client, ASK | {"domain": "words", "attribution": 100})

    assert {reason["part"] for item in answer["items"] for reason in item["because"]} == {"item"}


async def test_at_most_as_many_reasons_come_as_are_asked_for(client: httpx.AsyncClient) -> None:
    answer = await asked(client, ASK | {"attribution": 2, "timings": True})

    assert [len(item["because"]) for item in answer["items"]] == [2, 2, 2]
    assert 0 < answer["timings_ms"]["attribution"] < answer["timings_ms"]["total"]


async def test_an_answer_without_reasons_is_as_it_always_was(client: httpx.AsyncClient) -> None:
    answer = await asked(client, ASK | {"timings": True})

    assert "because" not in answer["items"][0]
    assert "attribution" not in answer["timings_ms"]


async def test_unknown_items_of_the_history_are_no_reasons(client: httpx.AsyncClient) -> None:
    answer = await asked(client, ASK | {"history": ["nothing", *HISTORY], "attribution": 100})

    assert "nothing" not in {reason["item_id"] for item in answer["items"] for reason in item["because"]}
    assert kinds_of(answer) == ["unknown_items"]


async def test_nothing_recommended_needs_no_reason(client: httpx.AsyncClient) -> None:
    answer = await asked(client, ASK | {"where": {"category": "none such"}, "attribution": 3})

    assert (answer["items"], kinds_of(answer)) == ([], ["no_eligible_items"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"history": [f"item-{n}" for n in range(1, 31)], "k": 100}, "30 items of the prompt takes 3000 effects"),
        ({"include_items": CANDIDATES, "template": "A-7", "k": 10}, "the limit is 1000"),
    ],
)
async def test_attributions_beyond_the_limits_are_refused(
    settings: Settings, runtime: Runtime, body: dict[str, Any], words: str
) -> None:
    limited = settings.model_copy(update={"max_request_tokens": 1_000})
    async with client_of(create_app(limited, lambda _: runtime)) as client:
        response = await client.post("/recommend/sequential", json=ASK | body | {"attribution": 1})

    problem = response.json()
    assert (response.status_code, problem["errors"][0]["field"]) == (422, "attribution")
    assert words in problem["detail"]


class Failing(DisguisedEngine):
    """Fails at attributions."""

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        if any(isinstance(plan, AttributionPlan) for plan in batch):
            raise RuntimeError("broken")
        return super().score(batch)


async def test_an_attribution_that_fails_costs_the_answer_its_reasons_only(
    settings: Settings, runtime: Runtime
) -> None:
    failing = replace(runtime, engine=Failing(runtime.engine))
    async with client_of(create_app(settings, lambda _: failing)) as client:
        answer = await asked(client, ASK | {"attribution": 3})
        metrics = (await client.get("/metrics")).text

    assert len(answer["items"]) == 3
    assert "because" not in answer["items"][0]
    assert kinds_of(answer) == ["attribution_missing"]
    assert 'vip5_degraded_total{kind="attribution_missing"} 1.0' in metrics


async def test_pictures_that_the_request_hides_are_as_if_they_were_missing(client: httpx.AsyncClient) -> None:
    seen = await asked(client, ASK)
    hidden = await asked(client, ASK | {"mask_images": HISTORY})
    others = await asked(client, ASK | {"mask_images": ["item-50", "nothing"]})

    assert [item["score"] for item in hidden["items"]] != [item["score"] for item in seen["items"]]
    assert kinds_of(hidden) == []
    assert others["items"] == seen["items"]
    assert kinds_of(others) == ["unknown_items"]
    assert "1 of mask_images omitted, not in the catalog: nothing" in str(others["degraded"])


async def test_a_canary_can_be_asked_for_only_where_there_is_one(client: httpx.AsyncClient) -> None:
    stable = await asked(client, ASK | {"role": "stable"})
    response = await client.post("/recommend/sequential", json=ASK | {"role": "canary"})

    assert stable["items"] == (await asked(client, ASK))["items"]
    assert (response.status_code, response.json()["code"]) == (404, "unknown_version")


async def test_many_attributions_at_once_are_all_answered(client: httpx.AsyncClient) -> None:
    one = await asked(client, ASK | {"attribution": 3})
    many = await asyncio.gather(*(asked(client, ASK | {"attribution": 3}) for _ in range(8)))

    for answer in many:
        for item, expected in zip(answer["items"], one["items"], strict=True):
            found = {(each["item_id"], each["part"]): each["effect"] for each in item["because"]}
            wanted = {(each["item_id"], each["part"]): each["effect"] for each in expected["because"]}
            assert found == pytest.approx(wanted, abs=TOLERANCE)
