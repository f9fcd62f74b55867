"""The engine process: the model, the lanes, administration, and the workers that speak HTTP for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI

from feature_cache.background import awaited
from service.batching.lanes import Lanes
from service.errors import LaneFailedError
from service.histories.store import HistoryStore
from service.http.app import create_app
from service.http.app_state import AppState, state_of
from service.http.descriptors import Descriptors, loop_error_handler, raise_limit
from service.http.ending import MARGIN_S, Ending
from service.http.interpreter import freeze_heap, tune_interpreter
from service.http.listening import Reservation, reserved
from service.http.server import SIGNALS, listening_for_admins, serving_admins, urls_of
from service.http.uvicorn_server import server_of
from service.observability.json_logging import logging_in_background
from service.processes.engine_calls import HubParts
from service.processes.engine_counts import count
from service.processes.hub import Hub
from service.processes.supervisor import Workers
from service.settings.settings import Settings

logger = logging.getLogger(__name__)

CORES_PER_ENGINE = 2
"""With fewer cores than twice this, one process does it all."""
LAST_ANSWERS_S = 2.0
"""So long workers may tell clients that a lane has failed."""


def num_workers_of(settings: Settings) -> int:
    """The number of workers; with `auto`, one for each core that the engine leaves.

    None on a CPU with few cores.
    """
    if settings.workers != "auto":
        return settings.workers
    num_cores = len(os.sched_getaffinity(0))
    if settings.device == "cpu":
        return 0 if num_cores < 2 * CORES_PER_ENGINE else num_cores // 4
    return max(1, num_cores - CORES_PER_ENGINE)


def run_engine(settings: Settings, num_workers: int) -> None:
    """Serve with workers until a signal, then drain. Raises BundleError kinds, ListenError and LaneFailedError."""
    tune_interpreter()
    with logging_in_background(settings.log_level) as log:
        app = create_app(settings)
        freeze_heap()
        state = state_of(app)
        state.followers = hub = Hub(lambda: state.service.domains, partial(count, state), settings.worker_ack_s)
        log.on_drop = state.metrics.count_dropped_log_lines
        descriptors = Descriptors(raise_limit(), state.metrics)
        with reserved(settings.endpoint) as reservation:
            workers = Workers(settings, num_workers, hub, reservation, log)
            workers.watch(state.metrics)
            state.process_problems = lambda: [*log.problems, *descriptors.problems, *workers.problems]
            factory = server_of(app, settings, descriptors).config.get_loop_factory()
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(_serve(app, settings, workers, _Parts(reservation, descriptors, Ending(log))))


@dataclass(frozen=True)
class _Parts:
    reservation: Reservation
    descriptors: Descriptors
    ending: Ending


async def _serve(app: FastAPI, settings: Settings, workers: Workers, parts: _Parts) -> None:
    descriptors = parts.descriptors
    state = state_of(app)
    must_end, at_once = asyncio.Event(), asyncio.Event()

    def shut_down() -> None:
        logger.info("draining")
        if state.running_service is None:
            parts.ending.at_once()
        parts.ending.within(MARGIN_S if must_end.is_set() else settings.drain_s + MARGIN_S)
        if must_end.is_set():
            at_once.set()
            workers.kill()
        must_end.set()
        state.readiness.drain()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(loop_error_handler(descriptors, state.metrics))

    def stop_at_once() -> None:
        at_once.set()
        must_end.set()

    state.liveness.on_crash = lambda: _call(loop, stop_at_once)
    state.readiness.others = workers.reasons
    for each in SIGNALS:
        loop.add_signal_handler(each, shut_down)
    with listening_for_admins(settings) as admin_listeners:
        async with app.router.lifespan_context(app):
            background = state.service.background
            lanes = state.service.lanes
            assert isinstance(lanes, Lanes), "the engine is in this process"
            hub_parts = HubParts(app, lanes, background, histories_for_workers(state))
            async with (
                background.kept("descriptors", descriptors.watch),
                serving_admins(app, settings, admin_listeners, descriptors),
                AsyncExitStack() as running,
            ):
                if not must_end.is_set():  # by a signal that came while the bundle was loaded
                    await running.enter_async_context(workers.running(hub_parts, state.metrics))
                    await _until_either(workers.until_listening(), must_end.wait())
                if not must_end.is_set():
                    logger.info("listening", extra=urls_of(parts.reservation.sockets, admin_listeners))
                await must_end.wait()
                if state.liveness.crash is not None:
                    await workers.drain(LAST_ANSWERS_S)
                else:
                    await _until_either(at_once.wait(), workers.drain(settings.drain_s))
    if (crash := state.liveness.crash) is not None:
        logger.critical("lane_failed", exc_info=crash.error, extra={"lane": crash.lane})
        raise LaneFailedError(f"the {crash.lane} lane has failed: {crash.error!r}; see the log for the cause")
    logger.info("ended")


def histories_for_workers(state: AppState) -> HistoryStore | None:
    """The store that workers ask this process for; they open one in Redis themselves."""
    histories = state.service.histories
    return histories.store if histories is not None and state.settings.history_store == "embedded" else None


async def _until_either(*works: Coroutine[Any, Any, object]) -> None:
    tasks = [awaited(each) for each in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call from another thread; does nothing if the loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
