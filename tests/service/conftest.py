"""The app over ASGI, on a tiny bundle with the real engine."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.types import ASGIApp

from model.network.config import DomainLayout
from model.planning.runtime import Runtime, load_runtime
from service.http.app import create_app
from service.http.app_state import state_of
from service.observability.tracing.traces import Traces
from service.settings.settings import Settings
from tests.service.workers import add_workers, workers_of
from tests.tiny import TINY_LAYOUT, tiny_bundle

TEXT_ONLY: DomainLayout = replace(TINY_LAYOUT, visual_tokens=0, feature_dim=0, visual_norm=False)

OVER_HTTP = {
    "test_admin",
    "test_admin_catalog",
    "test_admin_journal",
    "test_admin_waits",
    "test_api_keys",
    "test_attacks",
    "test_attacks_costs",
    "test_attribution",
    "test_audit",
    "test_bad_input",
    "test_batches",
    "test_browse",
    "test_browse_filters",
    "test_clients",
    "test_cross_origin",
    "test_explain",
    "test_histories",
    "test_load",
    "test_merchandising",
    "test_observability",
    "test_openapi",
    "test_overload",
    "test_page",
    "test_pictures",
    "test_proxies",
    "test_recommend",
    "test_scopes",
    "test_signed_bundles",
    "test_status",
    "test_traces",
}

StartApp: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains on one backbone: `toys` with images, `words` without."""
    return tiny_bundle(tmp_path_factory.mktemp("service"), ("toys", "words"), layouts={"words": TEXT_ONLY})


@pytest.fixture(scope="session")
def runtime(bundle: Path) -> Runtime:
    return load_runtime(bundle, num_threads=1)


def settings_of(bundle: Path) -> Settings:
    return Settings(bundle=bundle, max_history=30, max_candidates=40, max_body_bytes=4_000)


@pytest.fixture
def settings(bundle: Path) -> Settings:
    return settings_of(bundle)


async def until_ready(app: FastAPI) -> None:
    async with asyncio.timeout(60):
        while state_of(app).readiness.reasons():  # noqa: ASYNC110  # the app has no event for it; a probe polls just so
            await asyncio.sleep(0.001)


@dataclass
class Processes:
    """How many workers apps have in the running tests; 0: the app answers itself."""

    num_workers: int = 0


PROCESSES = Processes()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that talk to the app over HTTP, as all that are coroutines do, run without and with workers."""
    is_alone = metafunc.definition.get_closest_marker("alone") is not None
    talks = inspect.iscoroutinefunction(metafunc.function) and metafunc.module.__name__.rpartition(".")[2] in OVER_HTTP
    if talks and not is_alone:
        metafunc.parametrize("num_workers", [0, 2], ids=["alone", "workers"], indirect=True)


@pytest.fixture(scope="module", autouse=True)  # pytest sets up no other fixture that a test does not name
def num_workers(request: pytest.FixtureRequest) -> Iterator[int]:
    PROCESSES.num_workers = getattr(request, "param", 0)
    yield PROCESSES.num_workers
    PROCESSES.num_workers = 0


@asynccontextmanager
async def running(app: FastAPI, *, waits: bool = True, traces: Traces | None = None) -> AsyncIterator[ASGIApp]:
    """What is served while the app's lifespan runs: the app, or its workers in turn, which have these traces."""
    hub = add_workers(app) if PROCESSES.num_workers else None
    async with app.router.lifespan_context(app), AsyncExitStack() as workers:
        if waits:
            await until_ready(app)
        if hub is None:
            yield app
        else:
            yield await workers.enter_async_context(workers_of(app, hub, PROCESSES.num_workers, traces))


@asynccontextmanager
async def client_of(
    app: FastAPI,
    *,
    waits: bool = True,
    traces: Traces | None = None,
    address: tuple[str, int] | None = ("127.0.0.1", 1),
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, or of its workers, at this address, while the lifespan runs."""
    async with running(app, waits=waits, traces=traces) as served:
        transport = httpx.ASGITransport(served, client=address)  # type: ignore[arg-type]  # without one on Unix sockets
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture
def app(settings: Settings, runtime: Runtime) -> FastAPI:
    return create_app(settings, lambda _: runtime)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_app(bundle: Path, runtime: Runtime, num_workers: int) -> FastAPI:
    """One app for a module's tests, which leave it as it was and share its loop: `asyncio(loop_scope="module")`."""
    return create_app(settings_of(bundle), lambda _: runtime)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_client(shared_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shared_app) as client:
        yield client
