"""What clients notice of overload: early refusals, narrower searches, limits of their own, a process that is stuck."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from model.planning.runtime import Runtime
from service.batching import holds
from service.batching.batch_lane import BatchLane
from service.http.api_keys import ApiKey, new_key
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.identity import client_identity
from service.processes import worker_lanes
from service.settings.loading import SettingsError, load_settings
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.test_bad_input import check_problem
from tests.service.test_load import ASK, SEQUENTIAL, TELL, GatedEngine, ask, until_waiting
from tests.service.workers import states_of

BEAMS = {"beams": [{"num_beams": width, "latency_ms": width, "recall": width / 20} for width in (5, 10, 20)]}


@pytest.fixture
def engine(runtime: Runtime) -> GatedEngine:
    return GatedEngine(runtime)


@pytest.fixture
def app(settings: Settings, runtime: Runtime, engine: GatedEngine, tmp_path: Path) -> FastAPI:
    table = tmp_path / "beams.json"
    table.write_text(json.dumps(BEAMS), encoding="utf-8")
    given = {"min_beams": 5, "beam_table": table, "rate_limit": "20/hour", "stall_s": 1e-6, "max_batch_rows": 1}
    gated = replace(runtime, engine=engine)
    return create_app(settings.model_copy(update=given), lambda _: gated)


@pytest.fixture
async def client(app: FastAPI, engine: GatedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        engine.close()
        engine.beams.clear()
        yield client
        engine.gate.set()


def expect(app: FastAPI, batch_s: float) -> None:
    """Record earlier batches of the running one's size with this duration."""
    lane = state_of(app).service.recommender._lanes.ranking
    assert isinstance(lane, BatchLane)
    (running,) = lane._queue.in_flight
    for _ in range(100):
        lane._forecast._times.record(running.size, batch_s)


async def be_refused(client: httpx.AsyncClient) -> None:
    """Two refusals, so that each of two workers knows the forecast, which comes with replies."""
    for _ in range(2):
        check_problem(await client.post(SEQUENTIAL, json=ASK | {"deadline_ms": 5_000}), 429, "overloaded")


async def test_a_request_that_would_be_late_is_refused_at_once(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    running = ask(client)
    await engine.wait_entered()
    expect(app, 10.0)

    refused = await client.post(SEQUENTIAL, json=ASK | {"deadline_ms": 15_000})
    admitted = ask(client, deadline_ms=100_000)

    problem = check_problem(refused, 429, "overloaded")
    assert problem["detail"].endswith("or allow a longer deadline_ms")
    assert problem["retryable"] is True
    assert 10 <= int(refused.headers["Retry-After"]) <= 22
    assert 'vip5_requests_rejected_total{reason="overloaded"} 1.0' in (await client.get("/metrics")).text
    engine.gate.set()
    assert [(await each).status_code for each in (running, admitted)] == [200, 200]


async def test_after_a_refusal_the_next_one_costs_no_parsing(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "HOLD_S", 3600.0)
    monkeypatch.setattr(holds, "HOLD_SHARE", 3600.0)
    monkeypatch.setattr(worker_lanes, "FRESH_S", 3600.0)
    monkeypatch.setattr(worker_lanes, "FRESH_SHARE", 3600.0)
    for state in states_of(app):
        monkeypatch.setattr(state, "default_deadline_s", 5.0)
    json_type = {"content-type": "application/json"}

    async def status_of(content: bytes) -> int:
        return (await client.post(SEQUENTIAL, content=content, headers=json_type)).status_code

    running = ask(client)
    await engine.wait_entered()
    expect(app, 10.0)
    assert await status_of(b"{") == 400, "nothing was refused yet"
    await be_refused(client)

    no_json = await client.post(SEQUENTIAL, content=b"{", headers=json_type)
    problem = check_problem(no_json, 429, "overloaded")
    assert "the deadline is in 5.00 s" in problem["detail"]
    assert int(no_json.headers["Retry-After"]) >= 1
    assert await status_of(b'{"deadline_ms" : 5000') == 429
    assert await status_of(b'{"deadline_ms" : 100000') == 400, "a longer deadline may be kept"
    assert await status_of(b"x" * 1_000_000) == 429, "not read: it is larger than bodies may be"
    metrics = (await client.get("/metrics")).text
    assert 'vip5_requests_rejected_total{reason="overloaded"} 5.0' in metrics
    admitted = ask(client, deadline_ms=100_000)
    engine.gate.set()
    assert [(await each).status_code for each in (running, admitted)] == [200, 200]


async def test_searches_become_narrower_where_much_waits_and_the_client_left_the_width_open(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine, num_workers: int
) -> None:
    running = ask(client)
    await engine.wait_entered()
    waiting = [ask(client, deadline_ms=100_000)]
    await until_waiting(client, 1)
    expect(app, 10.0)
    await be_refused(client)
    open_width = ask(client, deadline_ms=50_000, k=3)
    await until_waiting(client, 2)
    given_width = ask(client, deadline_ms=70_000, num_beams=20)
    await until_waiting(client, 3)
    certified = ask(client, deadline_ms=600_000, exactness="certified")
    await until_waiting(client, 4)
    engine.gate.set()
    answers = [(await each).json() for each in (running, *waiting, open_width, given_width, certified)]

    (narrow,) = engine.beams[2]
    # A worker narrows by the forecast that it heard last, which may include one request more.
    assert narrow in ({5, 10} if num_workers else {10})
    assert engine.beams[:4] == [[20], [20], [narrow], [20]]
    assert [answer["num_beams_effective"] for answer in answers[:4]] == [20, 20, narrow, 20]
    notes = [[note["kind"] for note in answer["degraded"]] for answer in answers]
    assert ["beams_reduced" in kinds for kinds in notes] == [False, False, True, False, False]
    metrics = (await client.get("/metrics")).text
    assert "vip5_num_beams_reduced_total 1.0" in metrics
    assert 'vip5_degraded_total{kind="beams_reduced"} 1.0' in metrics


async def test_the_widening_of_a_certified_search_lets_others_pass(
    client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    certified = ask(client, exactness="certified", num_beams=3, k=3)
    await engine.wait_entered()
    others = [ask(client, k=4)]
    await until_waiting(client, 1)
    engine.gate.set()
    answers = [(await each).json() for each in (certified, *others)]

    assert answers[0]["exact_prefix"] == 3
    assert answers[0]["num_beams_effective"] > 3, "it had to be widened"
    assert engine.batches[:3] == [[3], [4], [3]]


async def test_a_client_with_too_many_requests_is_refused_and_others_are_not(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    engine.gate.set()
    answers = [await client.post("/explain", json=TELL | {"item_id": "nothing"}) for _ in range(20)]
    refused = await client.post(SEQUENTIAL, json=ASK)

    assert {answer.status_code for answer in answers} == {404}
    problem = check_problem(refused, 429, "rate_limited")
    assert "20 per 1 hour" in problem["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await client.get("/domains")).status_code == 200
    transport = httpx.ASGITransport(app, client=("10.1.2.3", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as other:
        assert (await other.post(SEQUENTIAL, json=ASK)).status_code == 200


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"client": ("10.0.0.1", 80)}, "address 10.0.0.1"),
        ({}, "address unknown"),
        ({"client": ("10.0.0.1", 80), "state": {"api_key": ApiKey.model_validate_json(new_key("k1").line)}}, "key k1"),
    ],
)
def test_a_client_is_its_key_or_else_its_address(scope: dict[str, Any], expected: str) -> None:
    assert client_identity(Request({"type": "http", "headers": []} | scope)) == expected


async def test_a_lane_that_is_stuck_makes_the_process_not_live(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    running = ask(client)
    await engine.wait_entered()

    live = await client.get("/health/live")

    assert live.status_code == 503
    assert live.json()["status"] == "not_live"
    (reason,) = live.json()["reasons"]
    assert reason.startswith("the ranking lane has been running one batch for ")
    engine.gate.set()
    await running
    async with asyncio.timeout(30):
        while (live := await client.get("/health/live")).status_code != 200:  # noqa: ASYNC110  # a probe polls
            await asyncio.sleep(0.001)
    assert live.json() == {"status": "live", "reasons": []}


async def test_a_lane_that_has_failed_makes_the_process_not_live(app: FastAPI, client: httpx.AsyncClient) -> None:
    state_of(app).liveness.note_crash("text", RuntimeError("broken"))

    live = await client.get("/v2/health/live")

    assert live.status_code == 503
    assert live.json()["reasons"] == ["the text lane has failed: RuntimeError('broken')"]


@pytest.mark.parametrize("name", ["VIP5_MIN_BEAMS", "VIP5_BEAM_TABLE"])
def test_reduction_needs_both_its_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "5")
    with pytest.raises(SettingsError, match="VIP5_MIN_BEAMS and VIP5_BEAM_TABLE go together"):
        load_settings({"bundle": "b"})


def test_a_rate_limit_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_RATE_LIMIT", "often")
    with pytest.raises(SettingsError, match="'often' is not a rate limit"):
        load_settings({"bundle": "b"})
