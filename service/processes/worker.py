"""A worker process: speaks HTTP, validates, plans and fetches embeddings.

The engine process has the model and starts the worker, which ends with it whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

from uvicorn import Config

from service.http.app_state import state_of
from service.http.descriptors import Descriptors, loop_error_handler, raise_limit
from service.http.interpreter import freeze_heap, tune_interpreter
from service.http.uvicorn_server import server_of
from service.observability.json_logging import logging_in_background
from service.observability.metrics.shared import SharedValues
from service.processes.worker_app import WorkerApp
from service.processes.worker_start import end_with_parent
from service.settings.settings import Settings

ORPHANED = 70
"""Exit status of a worker whose engine process has ended."""
LAST_LINE = (
    b'{"event": "engine_process_gone", "level": "CRITICAL", "logger": "service.processes.worker", "reason": "the '
    b'process that has the model has ended without a word; its workers end: start the service again"}\n'
)


@dataclass(frozen=True)
class WorkerOptions:
    """What the engine process gives to a worker, with the descriptors of inherited files."""

    number: int
    settings: Settings
    channel: int
    shared: int
    """A socket over which descriptors of shared memory come."""
    listeners: tuple[int, ...]
    last_word: int
    """A pipe that holds one byte: who reads it reports the end of the engine process."""
    engine_log: int
    """The log of the engine process."""
    metrics: int
    """Memory for what the worker counts, which outlives it."""
    parent: int


async def serve(options: WorkerOptions) -> None:
    """Serve until the engine process says that it is enough."""
    settings = options.settings
    SharedValues.open(options.metrics).install()
    worker = WorkerApp(settings)
    serving = asyncio.current_task()
    assert serving is not None

    def note_lost() -> None:
        if worker.is_broken:
            serving.cancel()  # the log has the cause; the engine process goes on and starts another worker
        elif not worker.must_end.is_set():
            _end_at_once(options)

    await worker.connect(socket.socket(fileno=options.channel), socket.socket(fileno=options.shared), note_lost)
    state = state_of(worker.app)
    loop = asyncio.get_running_loop()
    descriptors = Descriptors(raise_limit(), state.metrics)
    state.process_problems = lambda: descriptors.problems
    loop.set_exception_handler(loop_error_handler(descriptors, state.metrics))
    loop.add_signal_handler(signal.SIGTERM, worker.end)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # of a terminal: the engine process decides
    server = server_of(worker.app, settings, descriptors, served=worker.served)
    listeners = [socket.socket(fileno=each) for each in options.listeners]
    async with (
        worker.app.router.lifespan_context(worker.app),
        state.service.background.kept("descriptors", descriptors.watch),
    ):
        freeze_heap()
        worker.greet()
        await worker.next_step.wait()
        if worker.must_end.is_set():
            return

        async def tell() -> None:
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event
                await asyncio.sleep(0.005)
            worker.tell_listening()

        async def end() -> None:
            await worker.must_end.wait()
            server.should_exit = True

        state.service.background.once("listening", tell)
        state.service.background.once("end", end)
        await server.serve(sockets=listeners)
    worker.close()


def _end_at_once(options: WorkerOptions) -> NoReturn:
    """The engine process is gone: nobody can answer, and its successor may want the port."""
    with contextlib.suppress(OSError):
        if os.read(options.last_word, 1):
            os.write(options.engine_log, LAST_LINE)
    os._exit(ORPHANED)


def main() -> None:
    """Run a worker with the options on standard input, which the engine process has written."""
    options = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent process wrote it
    assert isinstance(options, WorkerOptions)
    tune_interpreter()

    def end_if_orphaned(*_: object) -> None:
        if os.getppid() != options.parent:
            _end_at_once(options)

    # The system sends this when the engine process ends. It wakes a worker that was stopped, and reaches one whose
    # event loop is blocked.
    signal.signal(signal.SIGCONT, end_if_orphaned)
    end_with_parent(signal.SIGCONT)
    end_if_orphaned()
    with logging_in_background(options.settings.log_level):
        factory = Config(lambda: None, log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve(options))
