"""POST /recommend/sequential:batch and /recommend/direct:batch answer many requests, each as it would be alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.planning.runtime import Runtime
from service.answering import bulk, recommender
from service.http import batches
from service.http.api_keys import new_key
from service.http.app import create_app
from service.settings.settings import Settings
from service.versions.domains import Serving
from service.versions.state import Roles
from tests.service.conftest import client_of
from tests.service.test_bad_input import check_problem
from tests.service.test_load import ASK, SEQUENTIAL, GatedEngine, ask, until_waiting
from tests.service.workers import answering_states_of

BATCH = "/recommend/sequential:batch"


@pytest.fixture
def engine(runtime: Runtime) -> GatedEngine:
    return GatedEngine(runtime)


@pytest.fixture
def settings(bundle: Path) -> Settings:
    return Settings(bundle=bundle, max_history=30, max_candidates=40, max_waiting=6)


@pytest.fixture
def app(settings: Settings, runtime: Runtime, engine: GatedEngine) -> FastAPI:
    gated = replace(runtime, engine=engine)
    return create_app(settings, lambda _: gated)


@pytest.fixture
async def client(app: FastAPI, engine: GatedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        engine.batches.clear()
        while engine.entered.acquire(blocking=False):
            pass
        yield client
        engine.gate.set()


def send(client: httpx.AsyncClient, *ks: int) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post(BATCH, json={"requests": [ASK | {"k": k} for k in ks]}))


async def metric(client: httpx.AsyncClient, line: str) -> bool:
    return line in (await client.get("/metrics")).text.splitlines()


async def test_each_request_has_the_answer_or_the_problem_that_it_would_have_alone(client: httpx.AsyncClient) -> None:
    bodies: list[Any] = [
        ASK | {"k": 3, "user_id": "u1"},
        ASK | {"k": 0},
        ASK | {"domain": "books"},
        ASK | {"history": ["no such item"]},
        {"domain": "words", "history": ["item-2"], "k": 2},
        "no object",
    ]

    batch = await client.post(BATCH, json={"requests": bodies}, headers={"X-Request-ID": "many"})
    alone = [(await client.post(SEQUENTIAL, json=body, headers={"X-Request-ID": "many"})) for body in bodies]

    assert batch.status_code == 200
    assert batch.headers["content-type"] == "application/json"
    answers = batch.json()["answers"]
    assert [answer.pop("request_id") for answer in answers] == [f"many.{number}" for number in range(6)]
    for answer, single in zip(answers, alone, strict=True):
        expected = single.json()
        assert expected.pop("request_id") == "many"
        assert answer.get("status", 200) == single.status_code
        if single.status_code == 200:
            assert [item.pop("score") for item in answer["items"]] == pytest.approx(
                [item.pop("score") for item in expected["items"]], abs=1e-3
            )
        assert answer == expected
    label = 'vip5_requests_total{domain="%s",route="%s",status="%d"} %d.0'
    for domain, status, number in (("words", 200, 1), ("toys", 200, 1), ("toys", 422, 1), ("", 422, 2), ("", 404, 1)):
        assert await metric(client, label % (domain, SEQUENTIAL, status, 2 * number)), "of the batch, and alone"
    assert await metric(client, label % ("", BATCH, 200, 1))
    assert await metric(client, "vip5_requests_per_body_sum 3.0")
    latencies = 'vip5_e2e_request_latency_seconds_count{domain="words",route="%s"} 1.0'
    assert await metric(client, latencies % SEQUENTIAL), "those of a batch have no latency of their own"


async def test_direct_requests_come_in_batches_too(client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "candidates": ["item-4", "item-5", "item-6"], "user_id": "u1"}

    batch = await client.post("/recommend/direct:batch", json={"requests": [body | {"template": "B-1"}, body]})

    answers = batch.json()["answers"]
    assert [answer["num_beams_effective"] for answer in answers] == [0, 20]
    assert all(len(answer["items"]) == 3 for answer in answers)


async def test_reasons_come_in_batches_too(client: httpx.AsyncClient) -> None:
    batch = await client.post(BATCH, json={"requests": [ASK | {"k": 1, "attribution": 1}]})

    (answer,) = batch.json()["answers"]
    assert [cause["item_id"] for item in answer["items"] for cause in item["because"]] == ["item-1"]


async def test_the_versions_of_all_are_chosen_at_once(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = [state.service for state in answering_states_of(app)]
    for lane in (service.lanes.ranking for service in services):

        async def change_before(requests: Any, who: Any, admit: Any = lane.admit) -> Any:  # noqa: ANN401
            for service in services:
                service.domains.publish("toys", Serving(Roles(), {}))
            return await admit(requests, who)

        monkeypatch.setattr(lane, "admit", change_before)
    first, second = [(await send(client, 1, 2)).json()["answers"] for _ in range(2)]

    assert [len(answer["items"]) for answer in first] == [1, 2]
    assert [answer["code"] for answer in second] == ["unknown_domain"] * 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"requests": []}, "requests"),
        ({"requests": [ASK] * 257}, "requests"),
        ({"requests": [ASK], "k": 3}, "k"),
        ([ASK], "body"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_as_a_whole(
    client: httpx.AsyncClient, body: object, field: str
) -> None:
    problem = check_problem(await client.post(BATCH, json=body), 422, "invalid_input")

    assert problem["errors"][0]["field"] == field


async def test_all_are_admitted_or_none(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    engine.close()
    running = ask(client, k=9)
    await engine.wait_entered()
    first = send(client, 1, 2, 3, 4)
    await until_waiting(client, 4)

    refused = await send(client, 5, 6, 7)
    alone = ask(client, k=8)
    await until_waiting(client, 5)
    second = send(client, 5, 6)
    await until_waiting(client, 7)

    problem = check_problem(refused, 429, "queue_full")
    assert "4 requests of batches are waiting, the limit is 6, and the body has 3" in problem["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    engine.gate.set()
    assert [(await each).status_code for each in (running, alone, first, second)] == [200] * 4
    assert [len(answer["items"]) for answer in (await first).json()["answers"]] == [1, 2, 3, 4]
    order = [k for batch in engine.batches for k in batch]
    assert order == [9, 8, 1, 2, 3, 4, 5, 6], "who came alone goes first"


async def test_a_batch_that_never_has_room_is_told_so(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    response = await send(client, *[1] * 7)

    problem = check_problem(response, 413, "load_too_large")
    assert problem["retryable"] is False
    assert "at most 6 can wait at once" in problem["detail"]
    assert "Retry-After" not in response.headers
    assert engine.batches == []


async def test_a_full_batch_takes_no_room_from_requests_that_come_alone(
    client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    engine.close()
    running = ask(client)
    await engine.wait_entered()
    batch = send(client, *[1] * 6)
    await until_waiting(client, 6)
    alone = [ask(client, k=2) for _ in range(6)]
    await until_waiting(client, 12)
    refused = await ask(client)

    check_problem(refused, 429, "queue_full")
    engine.gate.set()
    assert {(await each).status_code for each in (running, batch, *alone)} == {200}


@pytest.mark.alone  # and with one worker: of two, the second's batch may come before word that the first's has left
@pytest.mark.parametrize("num_workers", [0, 1], ids=["alone", "worker"], indirect=True)
async def test_who_leaves_frees_all_places_and_nothing_is_computed(
    client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    engine.close()
    running = ask(client, k=9)
    await engine.wait_entered()
    left = send(client, *[1] * 6)
    await until_waiting(client, 6)
    left.cancel()
    await asyncio.wait([left])
    again = send(client, *[2] * 6)
    await until_waiting(client, 6)
    engine.gate.set()

    assert [(await each).status_code for each in (running, again)] == [200, 200]
    assert {k for batch in engine.batches for k in batch} == {9, 2}


async def test_a_request_at_which_the_engine_fails_fails_alone(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    engine.poisoned_k = 2

    answers = (await send(client, 1, 2, 3)).json()["answers"]

    assert [answer.get("code") for answer in answers] == [None, "engine_error", None]


async def test_a_body_gives_way_after_each_plan_and_each_slice_of_answers(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    plan, content = recommender._plan, batches._content

    async def pause() -> None:
        done.append("pause")
        await asyncio.sleep(0)

    def planned(*arguments: Any) -> Any:  # noqa: ANN401
        done.append("plan")
        return plan(*arguments)

    def written(*arguments: Any) -> Any:  # noqa: ANN401
        done.append("answer")
        return content(*arguments)

    monkeypatch.setattr(recommender, "_plan", planned)
    monkeypatch.setattr(batches, "_content", written)
    monkeypatch.setattr(batches, "SLICE", 2)
    for module in (bulk, batches):
        monkeypatch.setattr(module, "give_way", pause)
    assert (await send(client, 1, 2, 3, 4, 5)).status_code == 200

    assert done[:10] == ["pause", "plan"] * 5 or done[:10] == ["plan", "pause"] * 5, "a task starts while one pauses"
    assert done[10:] == ["answer", "answer", "pause", "answer", "answer", "pause", "answer"]


async def test_keys_and_limits_hold_for_each_request(settings: Settings, runtime: Runtime, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    toys, poor = new_key("toys", domains=["toys"], quota="600/hour"), new_key("poor", quota="100/hour")
    keys.write_text(f"{toys.line}\n{poor.line}\n", encoding="utf-8")
    given = {"api_keys_file": keys, "rate_limit": "8/hour", "max_waiting": 20}
    app = create_app(settings.model_copy(update=given), lambda _: runtime)

    async with client_of(app) as client:

        async def post(key: str, *bodies: dict[str, Any]) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"}
            return await client.post(
                BATCH, content=json.dumps({"requests": bodies}), headers=headers | {"content-type": "application/json"}
            )

        mixed = await post(toys.key, ASK | {"domain": "words"}, ASK, ASK | {"history": ["none"]})
        too_many = await post(toys.key, *[ASK] * 9)
        dear = await post(poor.key, ASK)
        spent = await post(toys.key, *[ASK] * 4)
        again = await post(toys.key, ASK)
        more = await post(toys.key, ASK)

    assert [each.get("code") for each in mixed.json()["answers"]] == ["forbidden", None, "invalid_input"]
    assert "rate limit is 8 per 1 hour" in check_problem(too_many, 413, "load_too_large")["detail"]
    assert "quota of the key 'poor' is 100 per 1 hour" in check_problem(dear, 413, "load_too_large")["detail"]
    assert "quota" in check_problem(spent, 429, "rate_limited")["detail"]
    assert int(spent.headers["Retry-After"]) >= 1
    assert again.status_code == 429
    assert "8 per 1 hour" in check_problem(more, 429, "rate_limited")["detail"]
