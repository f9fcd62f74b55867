"""The app with workers around it, all in one process: what a client sees must not depend on them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from weakref import WeakKeyDictionary

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.batching.lanes import Lanes
from service.http.app_state import AppState, state_of
from service.observability.tracing.traces import Traces
from service.processes.engine import histories_for_workers
from service.processes.engine_calls import HubParts
from service.processes.engine_counts import count
from service.processes.hub import Hub, WorkerLink
from service.processes.worker_app import WorkerApp

_WORKERS: WeakKeyDictionary[FastAPI, list[WorkerApp]] = WeakKeyDictionary()


def states_of(app: FastAPI) -> list[AppState]:
    """The states of an app and of the workers that answer for it."""
    return [state_of(app), *(state_of(worker.app) for worker in _WORKERS.get(app, ()))]


def answering_states_of(app: FastAPI) -> list[AppState]:
    """The states of those that plan and answer: of the workers, or of the app if there are none."""
    return states_of(app)[1:] or states_of(app)


class Spread:
    """An app that passes requests to several others in turn."""

    def __init__(self, apps: list[ASGIApp]) -> None:
        self._apps = itertools.cycle(apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await next(self._apps)(scope, receive, send)


def add_workers(app: FastAPI) -> Hub:
    """Let workers follow the app; called before its lifespan begins."""
    state = state_of(app)
    hub = Hub(lambda: state.service.domains, partial(count, state), state.settings.worker_ack_s)
    state.followers = hub
    return hub


@asynccontextmanager
async def workers_of(app: FastAPI, hub: Hub, number: int, traces: Traces | None = None) -> AsyncIterator[ASGIApp]:
    """What is served by workers inside the block, during the app's lifespan. They have the app's metrics and traces."""
    state = state_of(app)
    lanes = state.service.lanes
    assert isinstance(lanes, Lanes)
    parts = HubParts(app, lanes, state.service.background, histories_for_workers(state))
    async with AsyncExitStack() as running:
        starting = (_worker_of(app, hub, parts, each, traces) for each in range(number))
        workers = [await running.enter_async_context(each) for each in starting]
        state.readiness.others = hub.reasons
        _WORKERS[app] = workers
        yield Spread([worker.served for worker in workers])


@asynccontextmanager
async def _worker_of(
    app: FastAPI, hub: Hub, parts: HubParts, number: int, traces: Traces | None
) -> AsyncIterator[WorkerApp]:
    ours, theirs = socket.socketpair()
    our_shared, their_shared = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = WorkerApp(state_of(app).settings, metrics=state_of(app).metrics, traces=traces)
    link = WorkerLink(hub, number, lambda reason: (_ for _ in ()).throw(AssertionError(reason)))
    await link.connect(ours, our_shared, parts)
    await worker.connect(theirs, their_shared, lambda: None)
    try:
        async with worker.app.router.lifespan_context(worker.app):
            worker.greet()
            await link.is_greeted.wait()
            await hub.join(link)
            await worker.next_step.wait()
            worker.tell_listening()
            await link.is_listening.wait()
            yield worker
    finally:
        worker.close()
        link.close()
        await asyncio.wait_for(link.is_lost.wait(), 10)
