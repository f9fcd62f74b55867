"""The app over ASGI, on a tiny bundle with the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from fastapi import FastAPI

from model.network.config import DomainLayout
from model.planning.runtime import Runtime, load_runtime
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings import Settings
from tests.tiny import TINY_LAYOUT, tiny_bundle

TEXT_ONLY: DomainLayout = replace(TINY_LAYOUT, visual_tokens=0, feature_dim=0, visual_norm=False)

StartApp: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains on one backbone: `toys` with images, `words` without."""
    return tiny_bundle(tmp_path_factory.mktemp("service"), ("toys", "words"), layouts={"words": TEXT_ONLY})


@pytest.fixture(scope="session")
def runtime(bundle: Path) -> Runtime:
    return load_runtime(bundle, num_threads=1)


@pytest.fixture
def settings(bundle: Path) -> Settings:
    return Settings(bundle=bundle, max_history=30, max_candidates=40, max_body_bytes=4_000)


async def until_ready(app: FastAPI) -> None:
    async with asyncio.timeout(60):
        while state_of(app).readiness.reasons():  # noqa: ASYNC110  # the app has no event for it; a probe polls just so
            await asyncio.sleep(0.001)


@asynccontextmanager
async def client_of(app: FastAPI, *, waits: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app while its lifespan runs."""
    async with app.router.lifespan_context(app):
        if waits:
            await until_ready(app)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture
def app(settings: Settings, runtime: Runtime) -> FastAPI:
    return create_app(settings, lambda _: runtime)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client
