"""Starts the process of one worker, with all that it inherits."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import service
from service.http.listening import Reservation
from service.observability.log_writer import LogWriter
from service.observability.metrics.shared import SharedValues
from service.observability.worker_log import WorkerLog
from service.processes.worker import WorkerOptions
from service.settings.settings import Settings


@dataclass(frozen=True)
class Started:
    """A worker's process, and the engine process's ends of what connects them."""

    process: Process
    channel: socket.socket
    shared: socket.socket
    counted: SharedValues
    log: WorkerLog

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class LastWord:
    """Lets one of several processes report that the engine process is gone."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        os.write(self._writing, b"!")
        os.set_blocking(self.reading, False)  # the standard library's signature
        self.log = os.dup(1)

    def close(self) -> None:
        for each in (self.reading, self._writing, self.log):
            os.close(each)


async def start_worker(
    number: int, settings: Settings, reservation: Reservation, last_word: LastWord, writer: LogWriter
) -> Started:
    """Start a worker; what could be opened is closed again if that fails. Raises OSError."""
    with ExitStack() as unless_started, ExitStack() as inherited:
        ours, theirs = socket.socketpair()
        unless_started.callback(ours.close)
        inherited.enter_context(theirs)
        our_shared, their_shared = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        unless_started.callback(our_shared.close)
        inherited.enter_context(their_shared)
        counted = SharedValues.create(f"vip5-worker-{number}")
        unless_started.callback(counted.close)
        log = WorkerLog(number, writer.put, writer.on_drop)
        unless_started.callback(log.close)
        listeners = [inherited.enter_context(each) for each in reservation.listeners()]
        options = WorkerOptions(
            number=number,
            settings=settings,
            channel=theirs.fileno(),
            shared=their_shared.fileno(),
            listeners=tuple(each.fileno() for each in listeners),
            last_word=last_word.reading,
            engine_log=last_word.log,
            metrics=counted.descriptor,
            parent=os.getpid(),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder called service where we are started is none of ours
            "-m",
            "service.processes.worker_start",
            str(os.getpid()),
            env={**os.environ, "PYTHONPATH": _python_path()},
            stdin=PIPE,
            stdout=log.stdout,
            stderr=log.stderr,
            pass_fds=(
                options.channel,
                options.shared,
                *options.listeners,
                options.last_word,
                options.engine_log,
                options.metrics,
            ),
        )
        unless_started.pop_all()
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(options))
    process.stdin.close()
    log.start()
    return Started(process, ours, our_shared, counted, log)


def _python_path() -> str:
    """Where the worker finds the same code as this process."""
    own = str(Path(service.__file__).parent.parent)
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
