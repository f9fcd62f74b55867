"""The background tasks of a running service: all are watched, and a failing one shows until it works again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from feature_cache.background import Background
from model.planning.runtime import Runtime
from service.answering.recommender import Recommender
from service.http import server, uvicorn_server
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.descriptors import Descriptors
from service.observability.metrics.metrics import BACKGROUND_TASKS
from service.settings.settings import Settings
from service.versions.journal import NoJournal, Update
from tests.service.conftest import client_of
from tests.service.live import bundle_of, live_settings, shop_of


async def degraded(client: httpx.AsyncClient) -> list[str]:
    found: list[str] = (await client.get("/health/ready")).json()["degraded"]
    return found


async def sample(client: httpx.AsyncClient, line: str) -> float:
    text = (await client.get("/metrics")).text
    return float(next(each for each in text.splitlines() if each.startswith(line)).split()[-1])


async def no_shadow_runs(background: Background) -> None:
    for task in [task for task, name in background.tasks.items() if name == "shadow"]:
        await task


async def test_every_task_of_a_running_service_is_watched(app: FastAPI) -> None:
    before = asyncio.all_tasks()

    async with client_of(app):
        watched = {task: name for task, name in state_of(app).service.background.tasks.items() if not task.done()}
        running = asyncio.all_tasks() - before

        assert running == watched.keys()
        assert sorted(watched.values()) == ["files", "journal", "loop_lag", "status"]
        assert set(watched.values()) <= set(BACKGROUND_TASKS)
    assert asyncio.all_tasks() == before


async def test_the_admin_port_is_served_again_after_its_server_has_failed(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed = asyncio.Event()
    on_tick = uvicorn_server.Server.on_tick

    async def fail_once(self: uvicorn_server.Server, counter: int) -> bool:
        if not has_failed.is_set():
            has_failed.set()
            raise LookupError("no such header")
        return await on_tick(self, counter)

    monkeypatch.setattr(uvicorn_server.Server, "on_tick", fail_once)
    settings = settings.model_copy(update={"admin_port": 0})
    app = create_app(settings, lambda _: runtime)
    descriptors = Descriptors(1000, state_of(app).metrics)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            client_of(app),
            server.serving_admins(app, settings, [listener], descriptors),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as admin,
        ):
            async with asyncio.timeout(30):
                text = (await admin.get("/metrics", timeout=30)).text
            watched = set(state_of(app).service.background.tasks.values())

    assert has_failed.is_set()
    assert 'vip5_background_failures_total{task="admin_port"} 1.0' in text
    assert "admin_port" in watched


async def test_a_journal_that_cannot_be_followed_shows_until_it_can(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed, may_work = asyncio.Event(), asyncio.Event()

    class Failing(NoJournal):
        async def changes(self) -> AsyncIterator[Update]:
            if not may_work.is_set():
                has_failed.set()
                raise ValueError("a snapshot that cannot be read")
            await asyncio.Event().wait()
            yield Update()

    monkeypatch.setattr("service.http.app.open_journal", lambda options, metrics: Failing())
    monkeypatch.setattr("feature_cache.background.SETTLED_S", 0.0)  # works again as soon as it runs
    async with client_of(create_app(settings, lambda _: runtime)) as client:
        await has_failed.wait()
        broken = await degraded(client)
        failures = await sample(client, 'vip5_background_failures_total{task="journal"}')
        may_work.set()
        async with asyncio.timeout(30):
            while await degraded(client):  # noqa: ASYNC110  # a probe polls
                await asyncio.sleep(0)

    assert broken == [
        "the background task journal has failed and is being restarted: ValueError: a snapshot that cannot be read"
    ]
    assert failures >= 1


async def test_an_unforeseen_error_in_the_warm_up_is_told_and_counted(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise LookupError("no such leaf")

    monkeypatch.setattr(Recommender, "answer_from", fail)
    async with client_of(create_app(settings, lambda _: runtime), waits=False) as client:
        async with asyncio.timeout(30):
            while not await sample(client, 'vip5_background_failures_total{task="warm_up"}'):  # noqa: ASYNC110  # a scraper polls
                await asyncio.sleep(0)
        reasons = (await client.get("/health/ready")).json()["reasons"]

    assert reasons == [
        "the warm-up of the domain toys failed: no such leaf",
        "the warm-up of the domain words failed: no such leaf",
    ]


async def test_a_failing_shadow_is_counted_and_named_until_one_works(tmp_path: Path) -> None:
    for seed, name in enumerate(("first", "second"), start=1):
        bundle_of(tmp_path / name, seed)
    async with shop_of(live_settings(tmp_path)) as shop:
        await shop.load("second")
        version = (await shop.versions())["loaded"]
        await shop.admin("POST", "/domains/toys/shadow", json={"version": version})
        background = state_of(shop.app).service.background
        recommender = state_of(shop.app).service.recommender
        answer_from = recommender._shadows._answer_from

        async def fail(*_: object) -> None:
            raise LookupError("no such leaf")

        recommender._shadows._answer_from = fail  # type: ignore[assignment]
        await shop.ask()
        await no_shadow_runs(background)
        broken = await degraded(shop.client)
        recommender._shadows._answer_from = answer_from
        await shop.ask()
        await no_shadow_runs(background)

        assert broken == ["the background task shadow failed when it last ran: LookupError: no such leaf"]
        assert await degraded(shop.client) == []
        assert await sample(shop.client, 'vip5_background_failures_total{task="shadow"}') == 1
