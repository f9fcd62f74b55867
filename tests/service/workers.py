"""The app with workers around it, all in one process: what a client sees must not depend on them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.batching.lanes import Lanes
from service.http.app_state import state_of
from service.processes.engine_counts import count
from service.processes.hub import Hub, HubParts, WorkerLink
from service.processes.worker_app import WorkerApp


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
async def workers_of(app: FastAPI, hub: Hub, number: int) -> AsyncIterator[ASGIApp]:
    """What is served by workers inside the block, during the app's lifespan."""
    state = state_of(app)
    lanes = state.service.lanes
    assert isinstance(lanes, Lanes)
    parts = HubParts(app, lanes, state.service.background)
    async with AsyncExitStack() as running:
        workers = [await running.enter_async_context(_worker_of(app, hub, parts, each)) for each in range(number)]

        def refuse() -> None:
            for link in hub.links:
                link.drain(stops=False)

        state.readiness.on_drain = refuse
        yield Spread([worker.served for worker in workers])


@asynccontextmanager
async def _worker_of(app: FastAPI, hub: Hub, parts: HubParts, number: int) -> AsyncIterator[WorkerApp]:
    ours, theirs = socket.socketpair()
    our_shared, their_shared = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = WorkerApp(state_of(app).settings, metrics=state_of(app).metrics)
    link = WorkerLink(hub, number, lambda reason: (_ for _ in ()).throw(AssertionError(reason)))
    await link.connect(ours, our_shared, parts)
    await worker.connect(theirs, their_shared, lambda: None)
    async with worker.app.router.lifespan_context(worker.app):
        worker.greet()
        await link.is_greeted.wait()
        await hub.join(link)
        await worker.next_step.wait()
        worker.tell_listening()
        await link.is_listening.wait()
        yield worker
    worker.close()
    link.close()
    await asyncio.wait_for(link.is_lost.wait(), 10)
