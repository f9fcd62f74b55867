"""Starts workers, replaces those that end or hang, and ends them with the engine process."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import service
from service.http.listening import Reservation
from service.processes.hub import Hub, HubParts, WorkerLink
from service.processes.worker import WorkerOptions
from service.processes.worker_app import STATUS_S
from service.settings import Settings

logger = logging.getLogger(__name__)

START_S = 60.0
"""A worker that does not listen for so long after its start is replaced."""
KILLED_S = 2.0
"""A killed process is gone within this."""


class WorkerEndedError(Exception):
    """A worker has ended, and nobody wanted it to."""


@dataclass
class _Running:
    """A worker's process and connection."""

    process: Process
    link: WorkerLink


class Workers:
    """The worker processes. Used on the event loop only."""

    def __init__(self, settings: Settings, num_workers: int, hub: Hub, reservation: Reservation) -> None:
        self._settings = settings.model_copy(
            update={"max_bodies_bytes": max(settings.max_body_bytes, settings.max_bodies_bytes // num_workers)}
        )
        self._num_workers = num_workers
        self._hub = hub
        self._reservation = reservation
        self._running: dict[int, _Running] = {}
        self._has_started: set[int] = set()
        self._is_ending = False
        self._ack_s = settings.worker_ack_s
        self._last_word_read, self._last_word_write = os.pipe()
        os.write(self._last_word_write, b"!")
        self._engine_log = os.dup(1)
        os.set_blocking(self._last_word_read, False)  # the standard library's signature

    @property
    def num_listening(self) -> int:
        return sum(each.link.is_listening.is_set() for each in self._running.values())

    def reasons(self) -> list[str]:
        """Why the service is not ready: at the start until all workers listen, later if none does."""
        starting = sorted(set(range(1, self._num_workers + 1)) - self._has_started)
        if starting:
            return [f"worker {number} is starting" for number in starting]
        return [] if self.num_listening or self._is_ending else ["no worker is running"]

    @property
    def problems(self) -> list[str]:
        """Workers that are missing, and what the workers report."""
        if self._is_ending:
            return []
        listening = {number for number, each in self._running.items() if each.link.is_listening.is_set()}
        missing = [f"worker {number} has ended and is being replaced" for number in self._has_started - listening]
        reported = (problem for each in self._running.values() for problem in each.link.status.problems)
        return [*missing, *dict.fromkeys(reported)]

    @asynccontextmanager
    async def running(self, parts: HubParts) -> AsyncIterator[None]:
        """Keep all workers running inside the block; at its end all are gone."""
        async with AsyncExitStack() as kept:
            try:
                for number in range(1, self._num_workers + 1):
                    run = partial(self._keep, number, parts)
                    await kept.enter_async_context(parts.background.kept(f"worker-{number}", run))
                yield
            finally:
                self._is_ending = True
                self.kill()
        os.close(self._last_word_read)
        os.close(self._last_word_write)
        os.close(self._engine_log)

    async def until_listening(self) -> None:
        """Wait until all workers have listened."""
        while self.reasons():  # noqa: ASYNC110  # a start takes a second
            await asyncio.sleep(0.01)

    async def drain(self, timeout_s: float) -> None:
        """Let workers complete what runs and end; wait for that no longer than `timeout_s`."""
        self._is_ending = True
        for each in self._running.values():
            each.link.drain(stops=True)
        waits = [asyncio.create_task(each.process.wait()) for each in self._running.values()]
        if waits:
            await asyncio.wait(waits, timeout=timeout_s)

    def refuse(self) -> None:
        """Let workers refuse new requests."""
        for each in self._running.values():
            each.link.drain(stops=False)

    def kill(self) -> None:
        """End all workers at once."""
        for each in self._running.values():
            _kill(each.process)

    async def _keep(self, number: int, parts: HubParts) -> None:
        """One worker from its start to its end. Raises WorkerEndedError."""
        if self._is_ending:
            await asyncio.Event().wait()
        process, link = await self._start(number, parts)
        self._running[number] = _Running(process, link)
        logger.info("worker_started", extra={"worker": number, "pid": process.pid})
        try:
            async with asyncio.timeout(START_S):
                await _either(link.is_greeted, link.is_lost)
                await self._hub.join(link)
                await _either(link.is_listening, link.is_lost)
            if link.is_listening.is_set():
                self._has_started.add(number)
            await self._watch(process, link)
        finally:
            _kill(process)
            link.close()
            status = await process.wait()
            del self._running[number]
        if self._is_ending:
            await asyncio.Event().wait()
        raise WorkerEndedError(f"worker {number} (process {process.pid}) has ended with status {status}")

    async def _watch(self, process: Process, link: WorkerLink) -> None:
        """Return when the worker has ended or hangs."""
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done() and not link.is_lost.is_set():
                await asyncio.wait({ended}, timeout=STATUS_S / 4)
                if time.monotonic() - link.heard_at > self._ack_s:
                    link.end(f"it has not been heard of for {self._ack_s:g} s")
                    return
        finally:
            ended.cancel()

    async def _start(self, number: int, parts: HubParts) -> tuple[Process, WorkerLink]:
        ours, theirs = socket.socketpair()
        with ExitStack() as opened:
            opened.enter_context(theirs)
            listeners = [opened.enter_context(each) for each in self._reservation.listeners()]
            descriptors = tuple(each.fileno() for each in listeners)
            options = WorkerOptions(
                number,
                self._settings,
                theirs.fileno(),
                descriptors,
                self._last_word_read,
                self._engine_log,
                os.getpid(),
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a folder called service where we are started is none of ours
                "-m",
                "service.processes.worker",
                env={**os.environ, "PYTHONPATH": _python_path()},
                stdin=PIPE,
                pass_fds=(theirs.fileno(), *descriptors, self._last_word_read, self._engine_log),
            )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(options))
        process.stdin.close()

        def end(reason: str) -> None:
            logger.error("worker_killed", extra={"worker": number, "reason": reason})
            _kill(process)

        link = WorkerLink(self._hub, number, end)
        await link.connect(ours, parts)
        return process, link


def _python_path() -> str:
    """Where the worker finds the same code as this process."""
    own = str(Path(service.__file__).parent.parent)
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
