"""A request's cost is estimated before it is paid: what costs too much is refused, and the rest shares what it can."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.types import Message, Scope

from model.bundle.catalog import Catalog
from model.decoding.eligibility import LeafMask
from model.planning.filters import Filters
from model.planning.runtime import Runtime
from service.answering import recommender
from service.errors import OverloadedError
from service.http.app import create_app
from service.http.body_budget import SMALL_BYTES, BodyBudget
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.test_bad_input import check_problem
from tests.service.workers import states_of
from tests.unit.planning.domains import tiny_domain

SEQUENTIAL = "/recommend/sequential"
ITEMS = [f"item-{number}" for number in range(1, 31)]
POINTWISE: dict[str, Any] = {"domain": "toys", "history": ITEMS, "include_items": ITEMS, "template": "A-7"}
NEVER_READ = AssertionError("the body was read")


@pytest.fixture
def app(settings: Settings, runtime: Runtime) -> FastAPI:
    limits = {"max_request_tokens": 1_500, "max_body_bytes": 200_000, "max_bodies_bytes": 300_000}
    return create_app(settings.model_copy(update=limits), lambda _: runtime)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def test_prompts_beyond_the_limit_are_refused_before_they_are_planned(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "_plan", lambda *_: pytest.fail("it was planned"))

    problem = check_problem(await client.post(SEQUENTIAL, json=POINTWISE), 422, "invalid_input")

    assert problem["errors"][0]["field"] == "include_items"
    assert "30 items of include_items" in problem["detail"]
    assert "the limit is 1500: send at most" in problem["detail"]


async def test_what_the_refusal_allows_is_answered(client: httpx.AsyncClient) -> None:
    problem = (await client.post(SEQUENTIAL, json=POINTWISE)).json()
    allowed = int(problem["detail"].partition("send at most ")[2].split()[0])

    answer = await client.post(
        SEQUENTIAL, json=POINTWISE | {"include_items": ITEMS[:allowed], "exclude_history": False}
    )

    assert (answer.status_code, len(answer.json()["items"])) == (200, min(10, allowed))


@pytest.mark.parametrize("template", ["B-1", "B-4"])
async def test_candidates_of_direct_requests_are_limited_alike(client: httpx.AsyncClient, template: str) -> None:
    body = {"domain": "toys", "candidates": ITEMS, "template": template}
    problem = check_problem(await client.post("/recommend/direct", json=body), 422, "invalid_input")
    assert problem["errors"][0]["field"] == "candidates"
    assert (await client.post("/recommend/direct", json=body | {"candidates": ITEMS[:10]})).status_code == 200


async def test_long_plans_are_made_in_a_thread(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    plan = recommender._plan

    def recorded(*given: Any) -> Any:  # noqa: ANN401  # as `_plan`
        threads.append(threading.current_thread())
        return plan(*given)

    monkeypatch.setattr(recommender, "_plan", recorded)
    monkeypatch.setattr(recommender, "LONG_PLAN_TOKENS", 500)

    for history in (ITEMS[:1], ITEMS):
        body = POINTWISE | {"history": history, "include_items": ITEMS[:5], "exclude_history": False}
        assert (await client.post(SEQUENTIAL, json=body)).status_code == 200

    assert [thread is threading.main_thread() for thread in threads] == [True, False]


async def test_a_rate_is_checked_before_the_body_is_read(settings: Settings, runtime: Runtime) -> None:
    app = create_app(settings.model_copy(update={"rate_limit": "1/hour"}), lambda _: runtime)
    async with client_of(app) as client:
        await client.post(SEQUENTIAL, json=POINTWISE)
        assert (await status_of(app, SEQUENTIAL)) == 429
        assert (await client.get("/domains/toys/items", params={"q": "toy"})).status_code == 429


async def status_of(app: FastAPI, path: str) -> int:
    """The status of a POST whose body must not be read."""
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"1000")],
        "client": ("127.0.0.1", 123),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        raise NEVER_READ

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_large_bodies_share_a_budget_and_small_ones_always_pass(app: FastAPI, client: httpx.AsyncClient) -> None:
    budgets = [state.body_budget for state in states_of(app)]
    padding = {"exclude_items": ["x" * 200] * 800}
    large = POINTWISE | padding | {"include_items": ITEMS[:3]}
    with ExitStack() as others:
        for budget in budgets:
            others.enter_context(budget.held()).grow_to(250_000)
        problem = check_problem(await client.post(SEQUENTIAL, json=large), 429, "overloaded")
        assert "the limit is 300000" in problem["detail"]
        small = await client.post(SEQUENTIAL, json=POINTWISE | {"include_items": ITEMS[:3], "exclude_history": False})
        assert small.status_code == 200
    assert (await client.post(SEQUENTIAL, json=large)).status_code == 200
    assert [budget.num_bytes for budget in budgets] == [0] * len(budgets), "all bodies were counted off"


def test_a_body_is_counted_once_however_it_arrives() -> None:
    budget = BodyBudget(3 * SMALL_BYTES)
    with budget.held() as body:
        for num_bytes in range(1, 2 * SMALL_BYTES, 1_000):
            body.grow_to(num_bytes)
        assert budget.num_bytes == body.num_bytes <= 2 * SMALL_BYTES
        with pytest.raises(OverloadedError, match="retry in 1 s"):
            body.grow_to(4 * SMALL_BYTES)
    assert budget.num_bytes == 0


def test_filters_are_bounded_by_their_bytes_whatever_their_values_are() -> None:
    domain = tiny_domain()
    one = LeafMask.of(np.ones(len(domain.catalog), dtype=np.bool_)).num_bytes
    filters = Filters(domain.catalog, domain.trie, max_bytes=3 * one)

    masks = [filters.mask({"category": (f"{number}" + "\N{GRINNING FACE}" * 500,)}) for number in range(10)]

    assert filters.num_bytes == 3 * one
    assert filters.mask({"category": ("9" + "\N{GRINNING FACE}" * 500,)}) is masks[9], "the latest are kept"
    assert filters.mask({"category": ("0" + "\N{GRINNING FACE}" * 500,)}) is not masks[0]
    assert filters.mask({}) is filters.mask({}), "that of all items is always kept"


def test_values_of_different_types_are_different_filters() -> None:
    rows = [{"item_id": str(n), "index": str(n), "size": float(n), "is_new": bool(n % 2)} for n in range(1, 5)]
    domain = tiny_domain(catalog=Catalog.from_rows(rows))
    by_size = domain.eligible({"size": (1.0,)})
    by_flag = domain.eligible({"is_new": (True,)})
    assert (by_size.num_members, by_flag.num_members) == (1, 2)
    assert domain.eligible({"size": (1.0,), "is_new": (True,)}).num_members == 1
