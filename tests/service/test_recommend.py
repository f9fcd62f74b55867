"""POST /recommend/sequential and /recommend/direct answer with items of the catalog and say how far to trust them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from feature_cache.embedded import EmbeddedStore
from model.planning.runtime import Runtime
from tests.service.workers import answering_states_of, states_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

HISTORY = ["item-1", "item-2", "item-3"]


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def kinds_of(answer: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in answer["degraded"]}


async def test_as_many_workers_answer_as_the_test_is_run_with(
    shared_app: FastAPI, shared_client: httpx.AsyncClient, num_workers: int
) -> None:
    assert (await shared_client.get("/domains")).status_code == 200
    assert len(states_of(shared_app)) == 1 + num_workers


async def test_a_history_is_answered_with_ranked_items_of_the_catalog(
    shared_client: httpx.AsyncClient, runtime: Runtime
) -> None:
    answer = await post(
        shared_client, "/recommend/sequential", {"domain": "toys", "history": HISTORY, "user_id": "u1", "k": 7}
    )

    catalog = runtime.domains["toys"].catalog
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5, 6, 7]
    assert len(set(ids_of(answer))) == 7
    assert not set(ids_of(answer)) & set(HISTORY)
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    for item in answer["items"]:
        row = catalog.row_of(item["item_id"])
        assert row is not None
        assert catalog.is_active[row]
        assert item["title"] == catalog.titles[row]
        assert item["image"] == catalog.images[row]
        assert item["attributes"] == {**catalog.attributes(row), "tags": list(catalog.attributes(row)["tags"])}  # type: ignore[arg-type]  # a tuple
    assert answer["domain"] == "toys"
    assert answer["bundle"] == runtime.bundle_hash
    assert answer["num_beams_effective"] == 20
    assert 0 <= answer["exact_prefix"] <= 7
    assert answer["timings_ms"] is None
    assert kinds_of(answer) == {"untrained_model"}


async def test_items_of_the_history_may_be_returned_if_asked_for(shared_client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "history": HISTORY, "include_items": HISTORY, "exclude_history": False}

    answer = await post(shared_client, "/recommend/sequential", body)

    assert set(ids_of(answer)) == set(HISTORY)


async def test_only_items_that_meet_every_constraint_are_returned(shared_client: httpx.AsyncClient) -> None:
    body = {
        "domain": "toys",
        "history": HISTORY,
        "k": 100,
        "where": {"category": "games", "tags": ["new", "red"]},
        "exclude_items": ["item-7", "item-13"],
    }

    answer = await post(shared_client, "/recommend/sequential", body)

    # category is games for n % 3 == 1, tags hold new for odd n and red for multiples of 5, multiples of 10 are inactive
    expected = {n for n in range(1, 121) if n % 3 == 1 and (n % 2 or n % 5 == 0) and n % 10} - {1, 2, 3, 7, 13}
    assert set(ids_of(answer)) == {f"item-{n}" for n in expected}


async def test_constraints_that_leave_nothing_give_no_items_and_say_so(shared_client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "history": HISTORY, "where": {"category": "none such"}}

    answer = await post(shared_client, "/recommend/sequential", body)

    assert answer["items"] == []
    assert "no_eligible_items" in kinds_of(answer)


async def test_certified_items_are_all_proven_and_equal_to_the_widest_search(shared_client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "history": HISTORY, "k": 3, "num_beams": 3}

    certified = await post(shared_client, "/recommend/sequential", body | {"exactness": "certified"})
    widest = await post(shared_client, "/recommend/sequential", body | {"num_beams": 256})

    assert certified["exact_prefix"] == 3
    assert certified["num_beams_effective"] >= 3
    assert ids_of(certified) == ids_of(widest)


async def test_what_is_unknown_or_missing_is_named(shared_client: httpx.AsyncClient) -> None:
    # item-11 has no embedding, item-x is in no catalog, user nobody in no table
    body = {"domain": "toys", "history": ["item-1", "item-x", "item-11"], "user_id": "nobody"}

    answer = await post(shared_client, "/recommend/sequential", body)

    assert kinds_of(answer) == {"unknown_items", "unknown_user", "missing_features", "untrained_model"}
    details = {each["kind"]: each["detail"] for each in answer["degraded"]}
    assert details["missing_features"] == "1 of 2 items of the prompt had no image embedding"


async def test_images_change_the_answer(shared_app: FastAPI, shared_client: httpx.AsyncClient) -> None:
    async def scores(item_id: str) -> list[float]:
        body = {"domain": "toys", "history": [item_id], "include_items": ["item-3", "item-4"], "user_id": "u1"}
        answer = await post(shared_client, "/recommend/sequential", body)
        return [item["score"] for item in answer["items"]]

    # The features of another item are put in the place of item-2's.
    stores = [state.service.domains.version("toys").features for state in answering_states_of(shared_app)]
    before = await scores("item-2")
    with pytest.MonkeyPatch.context() as patched:
        for store in stores:
            assert isinstance(store, EmbeddedStore)
            patched.setitem(store._place_of, "item-2", store._place_of["item-3"])
        assert await scores("item-2") != before
    assert await scores("item-2") == before


async def test_a_domain_without_images_has_none_to_miss(shared_client: httpx.AsyncClient) -> None:
    answer = await post(
        shared_client, "/recommend/sequential", {"domain": "words", "history": ["item-11"], "user_id": "u1"}
    )

    assert len(answer["items"]) == 10
    assert kinds_of(answer) == {"untrained_model"}


async def test_timings_cover_every_stage_when_asked_for(shared_client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "history": HISTORY, "timings": True}

    timings = (await post(shared_client, "/recommend/sequential", body))["timings_ms"]

    assert set(timings) == {"plan", "features", "queue", "encode", "decode", "total"}
    assert all(value >= 0 for value in timings.values())
    assert timings["total"] >= timings["encode"] + timings["decode"]


async def test_a_length_penalty_divides_the_score(shared_client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "history": HISTORY, "include_items": ["item-12"]}  # one token of text

    plain = await post(shared_client, "/recommend/sequential", body)
    penalised = await post(shared_client, "/recommend/sequential", body | {"length_penalty": 1.0})

    num_tokens = 2  # the start token and the text, without </s>
    assert penalised["items"][0]["score"] == pytest.approx(plain["items"][0]["score"] / num_tokens, abs=1e-5)


async def test_candidates_are_ranked_and_nothing_else(shared_client: httpx.AsyncClient) -> None:
    candidates = ["item-4", "item-5", "item-6"]

    answer = await post(
        shared_client, "/recommend/direct", {"domain": "toys", "candidates": candidates, "user_id": "u1"}
    )

    assert sorted(ids_of(answer)) == candidates
    assert answer["exact_prefix"] == 3


async def test_without_candidates_the_whole_catalog_is_ranked(shared_client: httpx.AsyncClient) -> None:
    answer = await post(shared_client, "/recommend/direct", {"domain": "toys", "user_id": "u1", "k": 100})

    assert len(set(ids_of(answer))) == 100


@pytest.mark.parametrize("template", ["B-1", "B-2", "B-3", "B-4"])
async def test_pointwise_templates_give_probabilities_of_yes(shared_client: httpx.AsyncClient, template: str) -> None:
    body = {
        "domain": "toys",
        "candidates": ["item-4", "item-5", "item-6", "item-10"],
        "template": template,
        "user_id": "u1",
    }

    answer = await post(shared_client, "/recommend/direct", body)

    assert sorted(ids_of(answer)) == ["item-4", "item-5", "item-6"]  # item-10 is inactive
    assert all(0 < item["score"] < 1 for item in answer["items"])
    assert answer["exact_prefix"] == 3
    assert answer["num_beams_effective"] == 0


async def test_a_pointwise_question_about_no_eligible_item_has_an_empty_answer(
    shared_client: httpx.AsyncClient,
) -> None:
    body = {"domain": "toys", "candidates": ["item-10"], "template": "B-1", "user_id": "u1"}

    answer = await post(shared_client, "/recommend/direct", body)

    assert answer["items"] == []
    assert "no_eligible_items" in kinds_of(answer)


async def test_a_given_request_id_comes_back_in_answer_and_header(shared_client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "history": HISTORY}

    response = await shared_client.post("/recommend/sequential", json=body, headers={"X-Request-ID": "shop-17"})

    assert response.headers["X-Request-ID"] == "shop-17"
    assert response.json()["request_id"] == "shop-17"


@pytest.mark.parametrize("given", ["", "x" * 129, "tab\tinside", "ümlaut".encode()])
async def test_an_unfit_request_id_is_replaced(shared_client: httpx.AsyncClient, given: str | bytes) -> None:
    response = await shared_client.get(
        "/health/live", headers=[(b"X-Request-ID", given if isinstance(given, bytes) else given.encode())]
    )

    assert len(response.headers["X-Request-ID"]) == 32
    assert response.headers["X-Request-ID"].isalnum()
