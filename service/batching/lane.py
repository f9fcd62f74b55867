"""A lane: one queue, and the one thread that takes jobs from it and runs the engine."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from model.errors import EngineError
from service.batching.job import AnyJob
from service.batching.queue import JobQueue
from service.errors import DrainingError
from service.observability.metrics import Metrics

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=AnyJob)
T = TypeVar("T")

OnCrash = Callable[[str, BaseException], None]
"""Called on a lane's thread, with the lane's name, when the lane itself has failed and takes no more work."""


class Lane(ABC, Generic[J]):
    """Runs jobs in the order of arrival. Lanes do not wait for each other."""

    def __init__(self, name: str, queue: JobQueue[J], metrics: Metrics, on_crash: OnCrash) -> None:
        self.name = name
        self._queue = queue
        self._metrics = metrics
        self._on_crash = on_crash
        self._busy_since: float | None = None
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._thread = threading.Thread(target=self._run, name=f"lane-{name}", daemon=True)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def num_running(self) -> int:
        return sum(not job.is_settled for job in self._queue.taken)

    @property
    def running(self) -> frozenset[J]:
        """Jobs that are with the engine, those included that nobody waits for any more."""
        return frozenset(self._queue.taken)

    @property
    def busy_s(self) -> float:
        """Seconds since the engine was last called, if it has not come back."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def wait_idle(self, timeout_s: float) -> None:
        """Let the call of the engine that is under way end, if one is; not those after it."""
        self._is_idle.wait(timeout_s)

    def completion_s(self) -> float:
        """Seconds until all that waits now is done, as far as is known."""
        return self._queue.completion_s()

    def check(self, deadline: float) -> None:
        """Raises QueueFullError, OverloadedError or DrainingError where a request has no chance, whatever it asks."""
        self._queue.check(deadline)

    def start(self) -> None:
        self._thread.start()

    async def close(self, timeout_s: float) -> None:
        """Take no more jobs, let what runs end, and give up on it after `timeout_s`."""
        for job in self._queue.close():
            job.fail(DrainingError("the service ended before the request was run", retry_after_s=1))
        await asyncio.to_thread(self._thread.join, timeout_s)

    # From here on: the lane's thread.

    @abstractmethod
    def _serve(self) -> None:
        """Run jobs until the queue is closed."""

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001  # a lane that dies in silence would leave requests waiting
            failure = EngineError(f"the {self.name} lane has failed, and the service ends; try another replica")
            failure.__cause__ = error
            for job in [*self._queue.close(), *self._queue.taken]:
                job.fail(failure)
            self._on_crash(self.name, error)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The engine is called within."""
        self._busy_since = started_at = time.monotonic()
        self._is_idle.clear()
        try:
            yield
        finally:
            self._busy_since = None
            self._is_idle.set()
            self._metrics.observe_busy(self.name, time.monotonic() - started_at)


def halves(parts: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    middle = (len(parts) + 1) // 2
    return parts[:middle], parts[middle:]


def failure_of(error: Exception) -> EngineError:
    failure = EngineError("the model failed at this request; the log names the cause under its request_id")
    failure.__cause__ = error
    return failure
