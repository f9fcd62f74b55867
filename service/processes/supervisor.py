"""Starts workers, replaces those that end or hang, and ends them with the engine process."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from feature_cache.background import awaited
from service.http.listening import Reservation
from service.observability.log_writer import LogWriter
from service.observability.metrics import Metrics
from service.observability.metrics.summed import WorkerMetrics
from service.processes.engine_calls import HubParts
from service.processes.hub import Hub, WorkerLink
from service.processes.worker_process import LastWord, Started, start_worker
from service.processes.worker_status import STATUS_S
from service.settings.settings import Settings

logger = logging.getLogger(__name__)

START_S = 60.0
"""A worker that does not listen for so long after its start is replaced."""

LOOK_S = STATUS_S / 4


class WorkerEndedError(Exception):
    """A worker has ended, and nobody wanted it to."""


@dataclass(frozen=True)
class _Running:
    started: Started
    link: WorkerLink


class Workers:
    """The worker processes. Used on the event loop only."""

    def __init__(
        self, settings: Settings, num_workers: int, hub: Hub, reservation: Reservation, log: LogWriter
    ) -> None:
        """All that the workers log goes to `log`."""
        share = settings.max_bodies_bytes // num_workers
        self._settings = settings.model_copy(update={"max_bodies_bytes": max(settings.max_body_bytes, share)})
        self._num_workers = num_workers
        self._hub = hub
        self._reservation = reservation
        self._log = log
        self._counted = WorkerMetrics()
        self._reaped_cpu_s = _cpu_s_of_children()
        self._running: dict[int, _Running] = {}
        self._has_started: set[int] = set()
        self._is_ending = False
        self._patience_s = settings.worker_ack_s

    def watch(self, metrics: Metrics) -> None:
        """Include in the metrics what workers count and see, and their number."""
        metrics.include(self._counted)
        metrics.watch_redis_of_workers(lambda: [each.link.status.is_redis_up for each in self._running.values()])
        metrics.watch_workers(lambda: self.num_listening)

    @property
    def num_listening(self) -> int:
        return sum(each.link.is_listening.is_set() for each in self._running.values())

    def reasons(self) -> list[str]:
        """Why the service is not ready: until all workers have listened, later if none does or one is not told."""
        starting = sorted(set(range(1, self._num_workers + 1)) - self._has_started)
        if starting:
            return [f"worker {number} is starting" for number in starting]
        if not self.num_listening and not self._is_ending:
            return ["no worker is running"]
        return self._hub.reasons()

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
    async def running(self, parts: HubParts, metrics: Metrics) -> AsyncIterator[None]:
        """Keep all workers running inside the block; at its end all are gone."""
        last_word = LastWord()
        try:
            async with AsyncExitStack() as kept:
                for number in range(1, self._num_workers + 1):
                    run = partial(self._keep, number, parts, last_word, metrics)
                    await kept.enter_async_context(parts.background.kept(f"worker-{number}", run))
                try:
                    yield
                finally:
                    self._is_ending = True
                    self.kill()
        finally:
            last_word.close()

    async def until_listening(self) -> None:
        """Wait until all workers have listened."""
        while self.reasons():  # noqa: ASYNC110  # a start takes a second
            await asyncio.sleep(0.01)

    async def drain(self, timeout_s: float) -> None:
        """Let workers complete what runs and end; wait for that no longer than `timeout_s`."""
        self._is_ending = True
        for each in self._running.values():
            if each.link.is_answering:
                each.link.stop()
            else:
                each.started.kill()  # it is starting, and has nothing to complete
        waits = [awaited(each.started.process.wait()) for each in self._running.values()]
        if waits:
            await asyncio.wait(waits, timeout=timeout_s)

    def kill(self) -> None:
        """End all workers at once."""
        for each in self._running.values():
            each.started.kill()

    async def _keep(self, number: int, parts: HubParts, last_word: LastWord, metrics: Metrics) -> None:
        """One worker from its start to its end. Raises WorkerEndedError."""
        if self._is_ending:
            await asyncio.Event().wait()
        if number in self._has_started:
            metrics.count_worker_restart()
        started = await start_worker(number, self._settings, self._reservation, last_word, self._log)
        self._counted.add(number, started.counted, started.process.pid)
        link = WorkerLink(self._hub, number, partial(_end, number, started))
        self._running[number] = _Running(started, link)
        logger.info("worker_started", extra={"worker": number, "pid": started.process.pid})
        try:
            await link.connect(started.channel, started.shared, parts)
            await self._let_listen(number, link)
            await self._watch(started, link)
        finally:
            started.kill()
            link.close()
            status = await started.process.wait()
            self._retire(number)
        if self._is_ending:
            await asyncio.Event().wait()
        raise WorkerEndedError(f"worker {number} (process {started.process.pid}) has ended with status {status}")

    async def _let_listen(self, number: int, link: WorkerLink) -> None:
        try:
            async with asyncio.timeout(START_S):
                await _either(link.is_greeted, link.is_lost)
                await self._hub.join(link)
                await _either(link.is_listening, link.is_lost)
        except TimeoutError:
            raise WorkerEndedError(
                f"worker {number} did not listen within {START_S:g} s of its start and was ended; look for its lines "
                "in the log, and whether the machine is overloaded"
            ) from None
        if link.is_listening.is_set():
            self._has_started.add(number)

    async def _watch(self, started: Started, link: WorkerLink) -> None:
        """Return when the worker has ended or hangs."""
        ended = awaited(started.process.wait())
        heard_at, silent_s = link.heard_at, 0.0
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=LOOK_S)
                if heard_at != link.heard_at:
                    heard_at, silent_s = link.heard_at, 0.0
                    continue
                silent_s += LOOK_S  # not by a clock: this process may have been stopped meanwhile
                if silent_s > self._patience_s:
                    link.end(f"it has not been heard of for {self._patience_s:g} s")
                    return
        finally:
            ended.cancel()

    def _retire(self, number: int) -> None:
        """Keep what a worker has counted and logged."""
        self._running.pop(number).started.log.close()
        before, self._reaped_cpu_s = self._reaped_cpu_s, _cpu_s_of_children()
        self._counted.retire(number, self._reaped_cpu_s - before)


def _end(number: int, started: Started, reason: str) -> None:
    logger.error("worker_killed", extra={"worker": number, "reason": reason})
    started.kill()


async def _either(*events: asyncio.Event) -> None:
    waits = [awaited(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()


def _cpu_s_of_children() -> float:
    """Processor time of all children that were reaped."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
