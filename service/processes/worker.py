"""A worker: speaks HTTP, validates, plans and fetches embeddings. The engine process starts it and has the model.

It ends with the engine process, whatever happens to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from feature_cache.background import Background
from model.bundle.domain_tables import read_tokenizer
from model.bundle.signatures import trusted_keys
from service.answering.beam_reduction import open_reduction
from service.answering.explainer import Explainer
from service.answering.parts import Service
from service.answering.recommender import Recommender
from service.channel.channel import Channel
from service.channel.messages import (
    Answer,
    AnswerPart,
    Counted,
    Discard,
    Drain,
    FromEngine,
    Hello,
    Listen,
    Listening,
    Prepare,
    Publish,
    Receive,
    Status,
)
from service.http.app_state import AppState, state_of
from service.http.descriptors import Descriptors, loop_error_handler, raise_limit
from service.http.uvicorn_server import server_of
from service.http.wiring import build_app
from service.observability.json_logging import logging_in_background
from service.processes.worker_calls import WorkerCalls
from service.processes.worker_lanes import RemoteLanes
from service.processes.worker_versions import BundleFolders, WorkerVersions
from service.settings import Settings
from service.versions.domains import Domains
from service.versions.features import open_features

logger = logging.getLogger(__name__)

STATUS_S = 1.0
ORPHANED = 70
"""Exit status of a worker whose engine process has ended."""
LAST_LINE = b'{"level": "critical", "message": "engine_process_gone", "logger": "service.processes.worker"}\n'
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class WorkerOptions:
    """What the engine process gives to a worker, with the descriptors of inherited files."""

    number: int
    settings: Settings
    channel: int
    listeners: tuple[int, ...]
    last_word: int
    """Holds one byte: who reads it reports the end of the engine process."""
    parent: int


@dataclass
class _Parts:
    """What messages of the engine process are for."""

    calls: WorkerCalls
    lanes: RemoteLanes
    versions: WorkerVersions | None = None
    next_step: asyncio.Event = field(default_factory=asyncio.Event)
    """The worker may listen, or must end."""
    must_end: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        self.must_end.set()
        self.next_step.set()


class Worker:
    """The connection to the engine process, and the service around it."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self._channel: Channel
        self._parts: _Parts
        self._state: AppState

    async def run(self) -> None:
        """Serve until the engine process says that it is enough."""
        options, settings = self.options, self.options.settings
        connected = socket.socket(fileno=options.channel)
        self._channel = await Channel.over(connected, FromEngine, self._handle, self._engine_is_gone)
        self._parts = _Parts(
            WorkerCalls(self._channel, settings.root_path), RemoteLanes(self._channel, settings.max_waiting)
        )
        app = build_app(settings, self._opened)
        self._state = state = state_of(app)
        loop = asyncio.get_running_loop()
        descriptors = Descriptors(raise_limit(), state.metrics)
        loop.set_exception_handler(loop_error_handler(descriptors, state.metrics))
        server = server_of(app, settings, descriptors, served=self._parts.calls.around(app))
        loop.add_signal_handler(signal.SIGTERM, self._parts.end)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # of a terminal: the engine process decides
        listeners = [socket.socket(fileno=each) for each in options.listeners]
        async with (
            app.router.lifespan_context(app),
            state.service.background.kept("descriptors", descriptors.watch),
        ):
            self._channel.send(Hello(os.getpid()))
            await self._parts.next_step.wait()
            if self._parts.must_end.is_set():
                return
            state.readiness.await_domains(())

            async def end() -> None:
                await self._parts.must_end.wait()
                state.readiness.drain()
                server.should_exit = True

            async def tell() -> None:
                while not server.started:  # noqa: ASYNC110  # uvicorn has no event
                    await asyncio.sleep(0.005)
                self._channel.send(Listening())

            state.service.background.once("end", end)
            state.service.background.once("listening", tell)
            await server.serve(sockets=listeners)
        self._channel.close()

    def _handle(self, message: FromEngine) -> None:
        parts = self._parts
        match message:
            case Prepare() | Publish() | Discard():
                assert parts.versions is not None, "the engine process waits for the worker's hello"
                parts.versions.handle(message)
            case Answer() | AnswerPart() | Receive():
                parts.calls.handle(message)
            case Listen():
                parts.next_step.set()
            case Drain():
                parts.lanes.is_draining = True
                self._state.readiness.drain()
                if message.stops:
                    parts.end()
            case Counted():
                pass
            case _:
                parts.lanes.handle(message)

    @asynccontextmanager
    async def _opened(self, state: AppState) -> AsyncIterator[Service]:
        settings, metrics, lanes = self.options.settings, state.metrics, self._parts.lanes
        trusted = trusted_keys(settings.trusted_keys)
        tokenizer = await asyncio.to_thread(read_tokenizer, settings.bundle, trusted)
        folders = BundleFolders(settings.bundle, settings.admin_options.bundles_root, tokenizer, trusted)
        background = Background(metrics)
        domains = Domains()
        async with aclosing(background), open_features(settings.feature_options, metrics, background) as features:
            beams = open_reduction(settings.reduction_options, lanes.ranking.completion_s)
            recommender = Recommender(domains, lanes, metrics, settings.request_limits, beams, background)
            versions = self._parts.versions = WorkerVersions(domains, folders, features, self._channel, background)
            service = Service(
                domains=domains,
                lanes=lanes,
                recommender=recommender,
                explainer=Explainer(domains, lanes, metrics, settings.request_limits),
                changes=None,
                background=background,
                problems=lambda: [*features.problems(), *background.problems],
            )

            async def report() -> None:
                while True:
                    problems = [*state.readiness.degraded()]
                    self._channel.send(Status(problems, None, dict(versions.requests)))
                    await asyncio.sleep(STATUS_S)

            async with (
                background.kept("versions", versions.follow),
                background.kept("status", report),
                aclosing(recommender),
            ):
                yield service

    def _engine_is_gone(self) -> None:
        """End at once: nobody can answer, and another engine process may want the port."""
        if self._parts.must_end.is_set():
            return
        with contextlib.suppress(OSError):
            if os.read(self.options.last_word, 1):
                os.write(2, LAST_LINE)
        os._exit(ORPHANED)


def main() -> None:
    """Run a worker with the options on standard input, which the engine process has written."""
    options = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent process wrote it
    assert isinstance(options, WorkerOptions)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != options.parent:
        os._exit(ORPHANED)
    settings = options.settings
    with logging_in_background(settings.log_level):
        from uvicorn.config import Config  # noqa: PLC0415

        factory = Config(lambda: None, log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(Worker(options).run())


if __name__ == "__main__":
    from service.processes.worker import main as run  # not __main__, whose classes would be others than the parent's

    run()
