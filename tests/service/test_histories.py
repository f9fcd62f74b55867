"""Stored histories over HTTP, with the embedded store: events in, recommendations from them, erased."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from model.planning.runtime import Runtime
from service.histories.embedded import EmbeddedStore
from service.histories.events import Event, UserKey
from service.http.api_keys import new_key
from service.http.app import create_app
from service.schemas.examples import ERASURE_ANSWER, EVENTS, EVENTS_ANSWER, HISTORY_ANSWER
from service.settings.settings import Settings
from tests.service.conftest import client_of

ANN = {"domain": "toys", "user_id": "u1"}
ASK = {**ANN, "k": 3}
HISTORY = "/domains/toys/users/u1/history"


@pytest.fixture
def settings(bundle: Path, tmp_path: Path) -> Settings:
    return Settings(
        bundle=bundle,
        max_history=30,
        history_store="embedded",
        history_file=tmp_path / "histories.jsonl",
        history_events=5,
        history_days=30,
    )


async def post(client: httpx.AsyncClient, *item_ids: str, **more: object) -> dict[str, Any]:
    answer = await client.post("/events", json=[{**ANN, "item_id": each, **more} for each in item_ids])
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def recommended(client: httpx.AsyncClient, **more: object) -> dict[str, Any]:
    answer = await client.post("/recommend/sequential", json={**ASK, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def kinds(answer: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in answer["degraded"]}


async def test_an_acknowledged_event_is_in_the_next_requests_history(client: httpx.AsyncClient) -> None:
    assert await post(client, "item-3", "item-5") == {
        "stored": 2,
        "duplicates": 0,
        "too_old": 0,
        "unknown_items": [],
    }
    stored = await recommended(client, timings=True)
    brought = await recommended(client, history=["item-3", "item-5"])
    assert stored["items"] == brought["items"]
    assert stored["timings_ms"]["history"] >= 0
    await post(client, "item-8")
    assert (await recommended(client))["items"] == (await recommended(client, history=["item-3", "item-5", "item-8"]))[
        "items"
    ]


async def test_the_history_is_shown_in_order_with_unknown_items_named(client: httpx.AsyncClient) -> None:
    now = time.time()
    await post(client, "item-3", timestamp=now - 10, type="view", event_id="1")
    found = await post(client, "not-yet", timestamp=now - 20)
    assert found["unknown_items"] == ["not-yet"]
    answer = (await client.get(HISTORY)).json()
    assert [(each["item_id"], each["type"], each["event_id"]) for each in answer["events"]] == [
        ("not-yet", None, None),
        ("item-3", "view", "1"),
    ]
    assert answer["unknown_items"] == ["not-yet"]
    recommendation = await recommended(client)
    assert "unknown_items" in kinds(recommendation)


async def test_events_sent_again_and_events_too_old_add_nothing(client: httpx.AsyncClient) -> None:
    now = time.time()
    await post(client, "item-3", event_id="1")
    assert (await post(client, "item-4", event_id="1"))["duplicates"] == 1
    assert (await post(client, "item-5", "item-5", timestamp=now))["duplicates"] == 1
    assert (await post(client, "item-6", timestamp=now - 31 * 86_400))["too_old"] == 1
    assert len((await client.get(HISTORY)).json()["events"]) == 2


async def test_a_user_without_a_history_gets_the_popular_items_that_the_request_allows(
    client: httpx.AsyncClient,
) -> None:
    events = [{"domain": "toys", "user_id": f"x{n}", "item_id": f"item-{1 + n % 2}"} for n in range(5)]
    await client.post("/events", json=[*events, {**events[0], "item_id": "item-10"}, {**events[0], "item_id": "gone"}])
    answer = await recommended(client, timings=True)
    assert [each["item_id"] for each in answer["items"]] == ["item-1", "item-2", "item-3"]  # item-10 is inactive
    assert kinds(answer) == {"history_missing", "untrained_model"}
    assert answer["exact_prefix"] == answer["num_beams_effective"] == 0
    scores = [each["score"] for each in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] < 0
    fewer = await recommended(client, exclude_items=["item-1"], include_items=["item-1", "item-2", "item-9"])
    assert [each["item_id"] for each in fewer["items"]] == ["item-2", "item-9"]
    dolls = await recommended(client, where={"category": ["dolls"]})
    assert {each["attributes"]["category"] for each in dolls["items"]} == {"dolls"}


async def test_a_request_may_refuse_the_popular_items(client: httpx.AsyncClient) -> None:
    answer = await client.post("/recommend/sequential", json={**ASK, "fallback": "none"})
    assert (answer.status_code, answer.json()["code"]) == (404, "no_history")
    await post(client, "not-yet")
    answer = await client.post("/recommend/sequential", json={**ASK, "fallback": "none"})
    assert "1 events, none of an item in the catalog" in answer.json()["detail"]
    await post(client, "item-3")
    assert (await client.post("/recommend/sequential", json={**ASK, "fallback": "none"})).status_code == 200


async def test_erasure_leaves_nothing_in_memory_file_and_log(
    client: httpx.AsyncClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ann = {"domain": "toys", "user_id": "ann/ü?", "item_id": "item-secret"}
    bob = {"domain": "toys", "user_id": "bob", "item_id": "item-4"}
    await client.post("/events", json=[ann, bob])
    path = "/domains/toys/users/ann%2F%C3%BC%3F/history"
    assert (await client.get(path)).json()["user_id"] == "ann/ü?"
    assert settings.history_file is not None
    assert "ann/" in settings.history_file.read_text(encoding="utf-8")
    assert (await client.delete(path)).json() == {"erased_events": 1}
    assert (await client.delete(path)).json() == {"erased_events": 0}
    assert (await client.get(path)).json()["events"] == []
    text = settings.history_file.read_text(encoding="utf-8")
    assert "ann" not in text
    assert "bob" in text
    logged = json.dumps([vars(each) for each in caplog.records if each.name != "httpx"], default=str)
    for secret in ("ann/", "ann%2F", "bob", "item-secret"):
        assert secret not in logged
    assert [path.name for path in settings.history_file.parent.iterdir()] == ["histories.jsonl"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ([], 422, "at least 1"),
        ([{**ANN, "item_id": "item-1"}] * 1_001, 422, "at most 1000"),
        ({**ANN, "item_id": "item-1", "timestamp": 1e12}, 422, "less than or equal to 253402300799"),
        ({**ANN, "item_id": "item-1", "timestamp": 9e9}, 422, "after the service's clock"),
        ({**ANN, "item_id": "item-1", "colour": "red"}, 422, '"field":"colour"'),
        ([{**ANN, "item_id": "item-1"}, {**ANN, "item_id": ""}], 422, '"field":"1.item_id"'),
        ([{**ANN, "item_id": "item-1"}, {**ANN, "item_id": "item-1", "timestamp": 9e9}], 422, '"field":"1.timestamp"'),
        ({**ANN, "item_id": "item\0"}, 422, "item_id"),
        ([{**ANN, "item_id": "item-1"}, {**ANN, "domain": "books", "item_id": "item-1"}], 404, "books"),
    ],
)
async def test_a_list_with_a_bad_event_is_refused_as_a_whole(
    client: httpx.AsyncClient, body: object, status: int, said: str
) -> None:
    answer = await client.post("/events", json=body)
    assert answer.status_code == status
    assert said in answer.text
    assert (await client.get(HISTORY)).json()["events"] == []


async def test_a_request_without_history_and_user_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/recommend/sequential", json={"domain": "toys"})
    assert answer.status_code == 422
    assert [(each["field"], each["code"]) for each in answer.json()["errors"]] == [("history", "missing")]
    answer = await client.post("/recommend/sequential", json={**ASK, "history": []})
    assert answer.status_code == 422


async def test_a_service_without_histories_says_so(runtime: Runtime, settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"history_store": "none"}), lambda _: runtime)
    async with client_of(app) as client:
        answer = await client.post("/events", json={**ANN, "item_id": "item-1"})
        assert (answer.status_code, answer.json()["code"]) == (409, "histories_disabled")
        assert (await client.get(HISTORY)).status_code == 409
        answer = await client.post("/recommend/sequential", json=ASK)
        assert answer.status_code == 422
        assert "send history" in answer.json()["detail"]


async def test_each_key_may_use_its_own_routes_only(runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
    keys = {
        route: new_key(route, routes=[route], domains=["toys"]) for route in ("recommend", "browse", "users", "events")
    }
    lines, audit = tmp_path / "keys.jsonl", tmp_path / "audit.jsonl"
    lines.write_text("\n".join(each.line for each in keys.values()), encoding="utf-8")
    changed = settings.model_copy(update={"api_keys_file": lines, "audit_log": audit})
    async with client_of(create_app(changed, lambda _: runtime)) as client:
        await use_each({route: each.key for route, each in keys.items()}, client)
    written = audit.read_text(encoding="utf-8")
    assert "secret-user" not in written
    assert "/domains/{name}/users" in written


async def use_each(keys: dict[str, str], client: httpx.AsyncClient) -> None:
    """Checks that each key, by its only route, opens that route and no other."""
    event = {**ANN, "user_id": "secret-user", "item_id": "item-1"}
    path = "/domains/toys/users/secret-user/history"
    for route, key in keys.items():
        headers = {"X-API-Key": key}
        posted = await client.post("/events", json=event, headers=headers)
        assert posted.status_code == (200 if route == "events" else 403)
        for method in ("GET", "DELETE"):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == (200 if route == "users" else 403)
    elsewhere = await client.post(
        "/events", json=[event, {**event, "domain": "words"}], headers={"X-API-Key": keys["events"]}
    )
    assert elsewhere.status_code == 403


async def test_events_and_lookups_are_counted(client: httpx.AsyncClient) -> None:
    await recommended(client)
    await post(client, "item-3", "item-3", event_id="1")
    await recommended(client)
    text = (await client.get("/metrics")).text
    assert 'vip5_events_total{outcome="stored"} 1.0' in text
    assert 'vip5_events_total{outcome="duplicate"} 1.0' in text
    assert 'vip5_history_lookups_total{outcome="found"} 1.0' in text
    assert 'vip5_history_lookups_total{outcome="missing"} 1.0' in text
    assert "vip5_history_store_up 1.0" in text


async def test_histories_outlive_the_process(runtime: Runtime, settings: Settings) -> None:
    async with client_of(create_app(settings, lambda _: runtime)) as client:
        await post(client, "item-3", "item-5")
        before = (await client.get(HISTORY)).json()
        popular = [each["item_id"] for each in (await recommended(client, user_id="u2"))["items"]]
    async with client_of(create_app(settings, lambda _: runtime)) as client:
        assert (await client.get(HISTORY)).json() == before
        assert [each["item_id"] for each in (await recommended(client, user_id="u2"))["items"]] == popular


async def test_the_examples_work_when_pasted_and_the_answers_are_like_those_shown(client: httpx.AsyncClient) -> None:
    one, several = EVENTS
    assert (await client.post("/events", json=one)).json() == EVENTS_ANSWER | {"unknown_items": ["toy-0152"]}
    shown = (await client.get("/domains/toys/users/user-30001/history")).json()
    assert [each | {"timestamp": 0} for each in shown["events"]] == [
        each | {"timestamp": 0} for each in HISTORY_ANSWER["events"]
    ]
    assert shown.keys() == HISTORY_ANSWER.keys()
    recent = [{**each, "timestamp": time.time()} if "timestamp" in each else each for each in several]
    assert (await client.post("/events", json=recent)).json()["stored"] == 2
    erased = (await client.delete("/domains/toys/users/user-30001/history")).json()
    assert erased == {"erased_events": 3}
    assert erased.keys() == ERASURE_ANSWER.keys()


async def test_what_a_user_was_shown_is_lowered_and_erased(client: httpx.AsyncClient) -> None:
    rotate = {"factor": 0.001, "fade_s": 3600}
    plain = await recommended(client, history=["item-3"])
    first = await recommended(client, history=["item-3"], rotate=rotate)
    ids = [item["item_id"] for item in plain["items"]]
    assert [item["item_id"] for item in first["items"]] == ids, "nothing was shown with rotation before"
    async with asyncio.timeout(60):  # what is shown is written after the answer
        second = first
        while second["items"] == first["items"]:
            second = await recommended(client, history=["item-3"], rotate=rotate)
    assert not set(ids) & {item["item_id"] for item in second["items"]}
    other = await recommended(client, user_id="unknown", history=["item-3"], rotate=rotate)
    assert not any("boosted_score" in item for item in other["items"]), "another user was shown nothing"
    assert (await client.delete(HISTORY)).status_code == 200
    erased = await recommended(client, history=["item-3"], rotate=rotate)
    assert [item["item_id"] for item in erased["items"]] == ids


async def test_rotation_that_cannot_be_is_refused(client: httpx.AsyncClient, runtime: Runtime, bundle: Path) -> None:
    body = {"domain": "toys", "history": ["item-3"], "rotate": {}}
    answer = await client.post("/recommend/sequential", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "rotate"
    assert error["message"].startswith("rotate lowers what a user was shown, and there is no user_id")
    for field, value in [("factor", 1), ("factor", 0), ("fade_s", 0), ("fade_s", 1e9)]:
        refused = await client.post("/recommend/sequential", json=body | {"user_id": "u1", "rotate": {field: value}})
        assert [each["field"] for each in refused.json()["errors"]] == [f"rotate.{field}"]
    async with client_of(create_app(Settings(bundle=bundle), lambda _: runtime)) as without:
        answer = await without.post("/recommend/sequential", json=body | {"user_id": "u1"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "rotate")
    assert "VIP5_HISTORY_STORE is none" in answer.json()["detail"]


async def test_requests_of_one_body_take_stored_histories_too(client: httpx.AsyncClient) -> None:
    await post(client, "item-3", "item-5")
    alone = await recommended(client)
    requests = [
        ASK,
        ASK | {"user_id": "u2"},
        ASK | {"user_id": "u2", "fallback": "none"},
        ASK | {"history": ["item-8"]},
    ]
    answer = await client.post("/recommend/sequential:batch", json={"requests": requests})
    assert answer.status_code == 200, answer.text
    stored, popular, none, brought = answer.json()["answers"]
    assert stored["items"] == alone["items"]
    assert "history_missing" in kinds(popular)
    assert (none["status"], none["code"]) == (404, "no_history")
    assert brought["items"] == (await recommended(client, history=["item-8"]))["items"]


async def test_a_body_reads_its_histories_one_after_the_other(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, steps = EmbeddedStore.read, []

    async def noted(store: EmbeddedStore, user: UserKey, limit: int) -> list[Event]:
        steps.append("begin")
        await asyncio.sleep(0)
        steps.append("end")
        return await read(store, user, limit)

    monkeypatch.setattr(EmbeddedStore, "read", noted)
    answer = await client.post("/recommend/sequential:batch", json={"requests": [ASK] * 5})
    assert answer.status_code == 200, answer.text
    assert steps == ["begin", "end"] * 5


@pytest.mark.parametrize("user_id", ["a/b", "a\nb", "?#%2F", "ü 😀", "history", "\x01"])
async def test_whoever_has_a_history_can_see_and_erase_it(client: httpx.AsyncClient, user_id: str) -> None:
    await post(client, "item-3", user_id=user_id)
    path = f"/domains/toys/users/{quote(user_id, safe='')}/history"
    assert [each["item_id"] for each in (await client.get(path)).json()["events"]] == ["item-3"]
    assert (await client.delete(path)).json() == {"erased_events": 1}


async def test_popular_items_keep_the_boosts_and_limits_of_the_request(client: httpx.AsyncClient) -> None:
    plain = await recommended(client)
    limited = await recommended(client, k=20, max_per={"category": 1})
    categories = [each["attributes"]["category"] for each in limited["items"]]
    assert 1 < len(categories) == len(set(categories))
    boosted = await recommended(client, boost={"items": {"item-9": 1000}})
    first = boosted["items"][0]
    assert first["item_id"] == "item-9" != plain["items"][0]["item_id"]
    assert first["boosted_score"] == pytest.approx(first["score"] + math.log(1000), abs=1e-5)
