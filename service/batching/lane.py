"""A lane: a queue, and the thread that takes jobs from it and runs the engine."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from model.engine.plans import Plan
from model.errors import EngineError
from service.batching.job import AnyJob, Load
from service.batching.queue import JobQueue
from service.batching.shares import NOBODY, Client
from service.errors import DrainingError, ServiceError
from service.observability.metrics import Metrics

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=AnyJob)
T = TypeVar("T")

OnCrash = Callable[[str, BaseException], None]
"""Called on a lane's thread with the lane's name and the error, when the lane itself fails and stops."""


class Lane(ABC, Generic[J]):
    """Runs jobs in order of arrival, independently of other lanes."""

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
        return sum(not job.is_settled for job in self._queue.in_flight)

    @property
    def running(self) -> frozenset[Plan]:
        """Plans that the engine runs, including those of abandoned jobs."""
        return frozenset(job.plan for job in self._queue.in_flight)

    @property
    def busy_s(self) -> float:
        """Duration of the current call of the engine; 0 between calls."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def wait_idle(self, timeout_s: float) -> None:
        """Wait for the current call of the engine to return, if there is one, but not for later calls."""
        self._is_idle.wait(timeout_s)

    def completion_s(self) -> float:
        """Forecast seconds until all waiting jobs are done."""
        return self._queue.completion_s()

    def forecast_for(self, client: Client) -> tuple[float, int, bool]:
        """Forecast seconds until a client's smallest request is done, the number waiting, and whether it is refused."""
        return self._queue.forecast_for(client)

    def check(self, deadline: float, load: Load | None = None, client: Client = NOBODY) -> None:
        """Reject a request of this load that the lane cannot answer in time, before it is planned.

        Raises QueueFullError, OverloadedError or DrainingError.
        """
        self._queue.check(deadline, load, client)

    def recent_refusal(self, client: Client, deadline_s: float) -> ServiceError | None:
        """Why a request with so much time until its deadline is refused, if one of its client was refused just now."""
        return self._queue.recent_refusal(client, deadline_s)

    def start(self) -> None:
        self._thread.start()

    async def close(self, timeout_s: float) -> None:
        """Reject new and waiting jobs, and wait up to `timeout_s` for the running ones."""
        for job in self._queue.close():
            message = "the service shut down before the request ran; retry on another replica"
            job.fail(DrainingError(message, retry_after_s=1))
        await asyncio.to_thread(self._thread.join, timeout_s)

    # On the lane's thread.

    @abstractmethod
    def _serve(self) -> None:
        """Run jobs until the queue is closed."""

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001  # requests must not wait for a thread that has died
            message = f"the {self.name} lane has failed and the service is shutting down; retry on another replica"
            failure = EngineError(message)
            failure.__cause__ = error
            for job in [*self._queue.close(), *self._queue.in_flight]:
                job.fail(failure)
            self._metrics.count_background_failure(self._thread.name)
            self._on_crash(self.name, error)

    @contextmanager
    def _engine_call(self) -> Iterator[None]:
        """Measures the call of the engine in the block."""
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
    failure = EngineError("the model failed on this request; find the cause in the log under its request_id")
    failure.__cause__ = error
    return failure
