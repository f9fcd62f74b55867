"""The app of a process that has the engine itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service.answering.opening import open_journal
from service.answering.parts import Service
from service.answering.readiness import warm_up
from service.answering.service import Loader, load, open_service
from service.http.app_state import AppState, state_of
from service.http.wiring import build_app
from service.observability.tracing.traces import Traces
from service.settings.settings import Settings


def create_app(settings: Settings, loader: Loader = load, traces: Traces | None = None) -> FastAPI:
    """The app. Its lifespan loads the bundle and warms the domains up in the background.

    `traces` default to those in the settings. Raises TracesError and ApiKeysError.
    """

    @asynccontextmanager
    async def opened(state: AppState) -> AsyncIterator[Service]:
        journal = open_journal(settings.journal_options, state.metrics)
        async with open_service(
            settings, state.metrics, state.liveness, loader, journal, state.followers, holds_all=state.holds_all
        ) as service:
            versions = service.domains.stable
            state.readiness.await_domains(versions)
            service.background.once(
                "warm_up", lambda: warm_up(state.readiness, service.recommender, list(versions.values()))
            )
            async with service.background.kept("status", state.recent.watch):
                yield service

    app = build_app(settings, opened, traces)
    state, readiness = state_of(app), state_of(app).readiness
    readiness.on_change = lambda: state.followers.tell(readiness.waiting_for, is_draining=readiness.is_draining)
    return app
