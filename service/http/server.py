"""Runs the app in uvicorn: listens, logs the address, and drains on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import uvicorn
from fastapi import FastAPI

from service.errors import LaneFailedError
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.descriptors import Descriptors, loop_error_handler, raise_limit
from service.http.ending import MARGIN_S, Ending
from service.http.interpreter import freeze_heap, tune_interpreter
from service.http.listening import listening_at, url_of
from service.http.uvicorn_server import server_of
from service.observability.json_logging import logging_in_background
from service.settings.settings import Settings

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_server(settings: Settings) -> None:
    """Serve until a signal, then drain. Raises BundleError kinds, ListenError and LaneFailedError."""
    tune_interpreter()
    with logging_in_background(settings.log_level) as log:
        app = create_app(settings)
        freeze_heap()
        state = state_of(app)
        log.on_drop = state.metrics.count_dropped_log_lines
        descriptors = Descriptors(raise_limit(), state.metrics)
        state.process_problems = lambda: [*log.problems, *descriptors.problems]
        server = server_of(app, settings, descriptors)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(app, server, settings, descriptors, Ending(log)))


async def _serve(
    app: FastAPI, server: uvicorn.Server, settings: Settings, descriptors: Descriptors, ending: Ending
) -> None:
    state = state_of(app)
    readiness, liveness = state.readiness, state.liveness

    def shut_down() -> None:
        logger.info("draining")
        if state.running_service is None:
            ending.at_once()
        ending.within(MARGIN_S if server.should_exit else settings.drain_s + MARGIN_S)
        readiness.drain()
        server.force_exit = server.should_exit  # a second signal stops without draining
        server.should_exit = True

    def stop_at_once() -> None:
        server.should_exit = server.force_exit = True

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(loop_error_handler(descriptors, state.metrics))
    liveness.on_crash = lambda: _call(loop, stop_at_once)
    for each in SIGNALS:
        loop.add_signal_handler(each, shut_down)
    with listening_at(settings.endpoint) as listeners, listening_for_admins(settings) as admin_listeners:
        # Entered here and not by uvicorn, so that a bundle's errors reach the caller.
        async with (
            app.router.lifespan_context(app),
            state.service.background.kept("descriptors", descriptors.watch),
            serving_admins(app, settings, admin_listeners, descriptors),
        ):
            logger.info("listening", extra=urls_of(listeners, admin_listeners))
            await server.serve(sockets=listeners)
    if liveness.crash is not None:
        crash = liveness.crash
        logger.critical("lane_failed", exc_info=crash.error, extra={"lane": crash.lane})
        raise LaneFailedError(f"the {crash.lane} lane has failed: {crash.error!r}; see the log for the cause")
    logger.info("ended")


def listening_for_admins(settings: Settings) -> contextlib.AbstractContextManager[list[socket.socket]]:
    endpoint = settings.admin_options.endpoint
    return contextlib.nullcontext([]) if endpoint is None else listening_at(endpoint)


def urls_of(listeners: Sequence[socket.socket], admin_listeners: Sequence[socket.socket]) -> dict[str, object]:
    """All URLs, and the first one of each kind."""
    urls = [url_of(each) for each in listeners]
    admin = {"admin_url": url_of(admin_listeners[0])} if admin_listeners else {}
    return {"url": urls[0], **admin, **({"urls": urls} if len(urls) > 1 else {})}


@contextlib.asynccontextmanager
async def serving_admins(
    app: FastAPI, settings: Settings, listeners: list[socket.socket], descriptors: Descriptors
) -> AsyncIterator[None]:
    """Serves the admin port inside the block, if there is one; it closes last."""
    admin_app = state_of(app).admin_app
    if not listeners or admin_app is None:
        yield
        return
    server = server_of(admin_app, settings, descriptors)

    async def serve() -> None:
        nonlocal server
        server = server_of(admin_app, settings, descriptors)  # uvicorn's servers run once, and close their sockets
        with contextlib.ExitStack() as stack:
            own = [stack.enter_context(each.dup()) for each in listeners]
            stack.enter_context(contextlib.closing(server))
            await server.serve(sockets=own)

    def end() -> None:
        server.should_exit = True

    async with state_of(app).service.background.kept("admin_port", serve, end=end):
        yield


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call from another thread; does nothing if the loop is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
