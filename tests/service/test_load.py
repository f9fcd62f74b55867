"""Under load the service refuses, gives up in time, drops who left, and outlives its engine's failures."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import GeneratedText, LogProbs, Ranking, TextProgress, TextSession, Timings
from model.planning.runtime import Runtime
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.engines import DisguisedEngine
from tests.service.conftest import client_of
from tests.service.test_bad_input import check_problem
from tests.service.workers import states_of

SEQUENTIAL = "/recommend/sequential"
ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"]}
TELL: dict[str, Any] = {"domain": "toys", "item_id": "item-1", "max_new_tokens": 4}


class GatedEngine(DisguisedEngine):
    """The real engine behind a gate that a test closes; fails for a given k."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.poisoned_k = 0
        self.batches: list[list[int]] = []
        self.beams: list[list[int]] = []
        self.texts: list[list[int]] = []
        self.was_stopped = threading.Event()

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        self.batches.append([plan.k for plan in batch])
        self.beams.append([plan.num_beams for plan in batch])
        self.pass_gate()
        if self.poisoned_k in self.batches[-1]:
            raise RuntimeError("poisoned")
        return self._engine.search(batch)

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        self.pass_gate()
        return self._engine.score(batch)

    def open_texts(self, num_rows: int) -> TextSession:
        return GatedTexts(self, self._engine.open_texts(num_rows))

    def pass_gate(self) -> None:
        self.entered.release()
        assert self.gate.wait(timeout=30)

    def close(self) -> None:
        """Block all further calls, and forget the earlier ones."""
        self.gate.clear()
        self.batches.clear()
        while self.entered.acquire(blocking=False):
            pass

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


class GatedTexts:
    """A session that waits at the gate before each step of a text of 13 tokens, and fails at prompts for 17."""

    def __init__(self, engine: GatedEngine, session: TextSession) -> None:
        self._engine, self._session = engine, session
        self._gated: set[int] = set()

    @property
    def num_free(self) -> int:
        return self._session.num_free

    def admit(self, plans: Sequence[TextPlan]) -> list[int]:
        lengths = [plan.max_new_tokens for plan in plans]
        self._engine.texts.append(lengths)
        if 17 in lengths:
            raise RuntimeError("poisoned")
        rows = self._session.admit(plans)
        self._gated |= {row for row, length in zip(rows, lengths, strict=True) if length == 13}
        return rows

    def step(self, rows: Sequence[int] | None = None) -> list[TextProgress]:
        if self._gated:
            self._engine.pass_gate()
        return self._session.step(rows)

    def cancel(self, row: int) -> GeneratedText:
        self._gated.discard(row)
        self._engine.was_stopped.set()
        return self._session.cancel(row)


@pytest.fixture
def engine(runtime: Runtime) -> GatedEngine:
    return GatedEngine(runtime)


@pytest.fixture
def app(settings: Settings, runtime: Runtime, engine: GatedEngine) -> FastAPI:
    gated = replace(runtime, engine=engine)
    return create_app(settings.model_copy(update={"max_waiting": 2, "default_deadline_ms": 600_000}), lambda _: gated)


@pytest.fixture
async def client(app: FastAPI, engine: GatedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        engine.close()
        yield client
        engine.gate.set()


def ask(client: httpx.AsyncClient, **fields: str | int) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post(SEQUENTIAL, json=ASK | fields))


async def until_waiting(client: httpx.AsyncClient, number: int) -> None:
    sample = f"vip5_num_requests_waiting {number}.0"
    async with asyncio.timeout(30):
        while sample not in (await client.get("/metrics")).text:  # noqa: ASYNC110  # polls, as a scraper does
            await asyncio.sleep(0.001)


async def test_a_full_queue_refuses_with_the_time_to_come_back(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    running = ask(client)
    await engine.wait_entered()
    waiting = [ask(client), ask(client)]
    await until_waiting(client, 2)

    response = await client.post(SEQUENTIAL, json=ASK)

    problem = check_problem(response, 429, "queue_full")
    assert problem["detail"].startswith("2 requests are waiting, the limit is 2; retry in ")
    assert int(response.headers["Retry-After"]) >= 1
    assert 'vip5_requests_rejected_total{reason="queue_full"} 1.0' in (await client.get("/metrics")).text
    engine.gate.set()
    assert [(await each).status_code for each in (running, *waiting)] == [200, 200, 200]


async def test_what_waits_together_is_batched(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    tasks = [ask(client, k=1)]
    await engine.wait_entered()
    tasks += [ask(client, k=2), ask(client, k=3, domain="words")]
    await until_waiting(client, 2)
    engine.gate.set()
    answers = [(await task).json() for task in tasks]

    assert [sorted(batch) for batch in engine.batches] == [[1], [2, 3]]
    assert [(answer["domain"], len(answer["items"])) for answer in answers] == [("toys", 1), ("toys", 2), ("words", 3)]


async def test_a_passed_deadline_is_told(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    # Long enough not to be refused for the loop's own delays on a busy machine; the engine waits at its gate.
    response = await client.post(SEQUENTIAL, json=ASK | {"deadline_ms": 500})

    problem = check_problem(response, 504, "deadline_exceeded")
    assert "allow a longer deadline_ms" in problem["detail"]


async def test_a_long_explanation_does_not_hold_up_a_recommendation(
    client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    text = asyncio.create_task(client.post("/explain", json=TELL | {"max_new_tokens": 13, "stream": True}))
    await engine.wait_entered()
    # The text is held at the gate; recommendations are let through one by one.
    recommendation = ask(client)
    await engine.wait_entered()
    assert not text.done()
    assert not recommendation.done()
    text.cancel()
    engine.gate.set()
    assert (await recommendation).status_code == 200


async def test_one_poisoned_request_of_a_batch_fails_alone(client: httpx.AsyncClient, engine: GatedEngine) -> None:
    engine.poisoned_k = 2
    tasks = [ask(client, k=1)]
    await engine.wait_entered()
    tasks += [ask(client, k=2), ask(client, k=3)]
    await until_waiting(client, 2)
    engine.gate.set()
    first, poisoned, third = [await task for task in tasks]

    assert (first.status_code, third.status_code) == (200, 200)
    problem = check_problem(poisoned, 500, "engine_error")
    assert "poisoned" not in problem["detail"]
    assert (await client.post(SEQUENTIAL, json=ASK)).status_code == 200


async def test_a_stream_that_fails_on_the_way_ends_with_an_error_event(client: httpx.AsyncClient) -> None:
    response = await client.post("/explain", json=TELL | {"max_new_tokens": 17, "stream": True})

    name, data = response.text.strip().split("\n")
    assert name == "event: error"
    problem = json.loads(data.removeprefix("data: "))
    assert problem["code"] == "engine_error"
    assert problem["status"] == 500
    assert problem["request_id"] == response.headers["X-Request-ID"]


class Caller:
    """A client below HTTP, which can leave in the middle of a request."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self._body = json.dumps(body).encode()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "state": {},
        }
        self._is_sent = False
        self.leaves = asyncio.Event()
        self.heard: list[Message] = []

    async def receive(self) -> Message:
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)  # as a socket may: whoever was cancelled notices here
        self.heard.append(message)

    async def call(self, app: FastAPI) -> None:
        await app(self._scope, self.receive, self.send)


async def test_a_client_that_leaves_is_dropped_from_the_queue(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    running = ask(client, k=1)
    await engine.wait_entered()
    caller = Caller(SEQUENTIAL, ASK | {"k": 2})
    call = asyncio.create_task(caller.call(app))
    await until_waiting(client, 1)
    caller.leaves.set()
    await call
    engine.gate.set()
    await running
    await ask(client, k=3)

    assert engine.batches == [[1], [3]]
    route = 'domain="toys",route="/recommend/sequential",status="499"'
    assert f"vip5_requests_total{{{route}}} 1.0" in (await client.get("/metrics")).text


async def test_a_client_that_leaves_a_stream_stops_the_text(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    caller = Caller("/explain", TELL | {"max_new_tokens": 13, "stream": True})
    call = asyncio.create_task(caller.call(app))
    await engine.wait_entered()
    caller.leaves.set()
    await call
    engine.gate.set()

    assert await asyncio.to_thread(engine.was_stopped.wait, 30)


async def test_the_text_of_a_client_that_left_before_its_stream_began_is_never_generated(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    first, gone = (Caller("/explain", TELL | {"max_new_tokens": n, "stream": True}) for n in (13, 5))
    running = asyncio.create_task(first.call(app))
    await engine.wait_entered()
    gone.leaves.set()
    await gone.call(app)  # queued behind the first, and given up before a word of its answer was sent
    first.leaves.set()
    await running
    engine.gate.set()
    await client.post("/explain", json=TELL)

    assert engine.texts == [[13], [4]]


async def test_before_the_warm_up_nothing_is_answered_but_probes(app: FastAPI, engine: GatedEngine) -> None:
    engine.close()
    async with client_of(app, waits=False) as client:
        live = await client.get("/health/live")
        ready = await client.get("/health/ready")
        refused = await client.post(SEQUENTIAL, json=ASK)
        engine.gate.set()

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "not_ready",
        "reasons": ["the domain toys is being warmed up", "the domain words is being warmed up"],
        "degraded": [],
    }
    check_problem(refused, 503, "not_ready")
    assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["/health/ready", "/v2/health/ready", "/v2/models/toys/ready"])
async def test_after_the_warm_up_the_service_is_ready(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "reasons": [], "degraded": []}


async def test_while_draining_new_requests_are_refused_and_running_ones_end(
    app: FastAPI, client: httpx.AsyncClient, engine: GatedEngine
) -> None:
    running = ask(client)
    await engine.wait_entered()
    state_of(app).readiness.drain()
    async with asyncio.timeout(30):
        while not all(state.readiness.reasons() for state in states_of(app)):  # noqa: ASYNC110  # workers are told
            await asyncio.sleep(0.001)

    refused = await client.post(SEQUENTIAL, json=ASK)
    ready = await client.get("/health/ready")

    check_problem(refused, 503, "draining")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["the service is draining"]
    engine.gate.set()
    assert (await running).status_code == 200


async def test_a_domain_whose_warm_up_fails_keeps_the_service_from_being_ready(
    app: FastAPI, engine: GatedEngine
) -> None:
    engine.poisoned_k = 1
    async with client_of(app, waits=False) as client:
        async with asyncio.timeout(30):
            while "failed" not in (ready := await client.get("/health/ready")).text:  # noqa: ASYNC110  # a probe polls
                await asyncio.sleep(0.001)
        assert ready.status_code == 503
        assert ready.json()["reasons"][0].startswith("the warm-up of the domain toys failed: the model failed")
        check_problem(await client.post(SEQUENTIAL, json=ASK), 503, "not_ready")
