"""Background tasks: their failures are logged and counted, and those that must last are restarted.

The service uses it too, so that all of its tasks are started here. Knows nothing of what the tasks do.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

Work: TypeAlias = Coroutine[Any, Any, None]

SETTLED_S = 30.0
"""A restarted task that has run for so long has recovered."""
LARGEST_EXPONENT = 64


@dataclass(frozen=True)
class Backoff:
    """Pauses between attempts, which double up to a cap. Jitter keeps services from retrying all at once."""

    base_s: float = 0.1
    cap_s: float = 30.0

    def pause_s(self, num_failures: int) -> float:
        """Between half and all of `base_s * 2 ** (num_failures - 1)`, at most `cap_s`, for any number of failures."""
        longest_s = min(self.cap_s, self.base_s * 2.0 ** min(num_failures - 1, LARGEST_EXPONENT))
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311  # not for cryptography


class FailureObserver(Protocol):
    """Counts failures of background tasks."""

    def count_background_failure(self, task: str) -> None: ...


class NoFailureObserver:
    """Counts nothing."""

    def count_background_failure(self, task: str) -> None:
        pass


@dataclass(eq=False)
class KeptTask:
    """A task that is restarted whenever it fails or returns, until it is stopped."""

    name: str
    run: Callable[[], Work]
    backoff: Backoff
    observer: FailureObserver
    failure: str = ""  # the last one
    num_failures: int = 0  # in a row
    _running_since: float | None = None
    _is_ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def problem(self) -> str:
        """Why the task is not known to work; empty if it works."""
        if not self.failure or self._has_settled():
            return ""
        return f"the background task {self.name} has failed and is being restarted: {self.failure}"

    def end(self) -> None:
        """Let the task return without being restarted."""
        self._is_ending.set()

    async def keep(self) -> None:
        """Run until cancelled or ended."""
        while not self._is_ending.is_set():
            self._running_since = asyncio.get_running_loop().time()
            try:
                await self.run()
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                self._note(error)  # the task itself raised it
            except Exception as error:  # noqa: BLE001  # whatever it is, the task has to go on
                self._note(error)
            else:
                if self._is_ending.is_set():
                    return
                self._note(RuntimeError("it returned, although it has to run for as long as the service"))
            with suppress(TimeoutError):
                async with asyncio.timeout(self.backoff.pause_s(self.num_failures)):
                    await self._is_ending.wait()

    def _note(self, error: BaseException) -> None:
        self.num_failures = 1 if self._has_settled() else self.num_failures + 1
        self.failure, self._running_since = _described(error), None
        _report(self.name, error, self.observer, {"num_failures": self.num_failures})

    def _has_settled(self) -> bool:
        since = self._running_since
        return since is not None and asyncio.get_running_loop().time() - since >= SETTLED_S


class Background:
    """The background tasks of one service."""

    def __init__(self, observer: FailureObserver | None = None, backoff: Backoff | None = None) -> None:
        self._observer = NoFailureObserver() if observer is None else observer
        self._backoff = backoff or Backoff()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._kept: dict[str, KeptTask] = {}
        self._failed: dict[str, str] = {}
        """The last runs of tasks that run once, as far as they failed."""

    @property
    def tasks(self) -> Mapping[asyncio.Task[None], str]:
        """The running tasks and their names."""
        return self._tasks

    @property
    def problems(self) -> list[str]:
        """Tasks that are down, for an operator."""
        down = [kept.problem for kept in self._kept.values() if kept.problem]
        return down + [
            f"the background task {name} failed when it last ran: {failure}" for name, failure in self._failed.items()
        ]

    @asynccontextmanager
    async def kept(
        self, name: str, run: Callable[[], Work], *, end: Callable[[], None] | None = None
    ) -> AsyncIterator[None]:
        """Keep a task running inside the block; failures are logged, counted and followed by a restart.

        At the end the task is cancelled, or with `end`, which makes it return, awaited.
        """
        kept = self._kept[name] = KeptTask(name, run, self._backoff, self._observer)
        task = self._start(name, kept.keep())
        try:
            yield
        finally:
            kept.end()
            if end is None:
                task.cancel()
            else:
                end()
            await asyncio.wait({task})
            del self._kept[name]

    def once(self, name: str, run: Callable[[], Work], **about: str) -> asyncio.Task[None]:
        """Run a task once. A failure is logged with `about`, counted, and a problem until a later run succeeds."""
        return self._start(name, self._run_once(name, run, about))

    async def aclose(self) -> None:
        """Cancel all tasks, and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, name: str, work: Work) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    async def _run_once(self, name: str, run: Callable[[], Work], about: Mapping[str, str]) -> None:
        try:
            await run()
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            self._note_failed(name, error, about)
        except Exception as error:  # noqa: BLE001  # reported, whatever it is
            self._note_failed(name, error, about)
        else:
            self._failed.pop(name, None)

    def _note_failed(self, name: str, error: BaseException, about: Mapping[str, str]) -> None:
        self._failed[name] = _described(error)
        _report(name, error, self._observer, about)


def awaited(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task whose creator awaits it. If the creator is gone first, an error of the task is of no interest."""
    task = asyncio.create_task(work)
    task.add_done_callback(_retrieve)
    return task


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Keeps asyncio from reporting the task's error as one that was never retrieved."""
    if not task.cancelled():
        task.exception()


def _is_cancelled() -> bool:
    """Whether somebody has cancelled the current task, rather than it having raised CancelledError itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report(name: str, error: BaseException, observer: FailureObserver, about: Mapping[str, object]) -> None:
    logger.error("background_failed", exc_info=error, extra={"task": name, **about})
    observer.count_background_failure(name)


def _described(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
