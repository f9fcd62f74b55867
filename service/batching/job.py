"""One request's rows for one of the engine's methods.

A job is made and awaited on the event loop, and run on a lane's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from model.engine.protocol import OnToken, RankingWork, ScoringWork, TextWork, Timings
from service.errors import DeadlineError

Work: TypeAlias = RankingWork | ScoringWork | TextWork

W = TypeVar("W", bound=Work)
W_contra = TypeVar("W_contra", bound=Work, contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class EngineCall(Protocol[W_contra, R_co]):
    """One method of the engine. Only generating text reports tokens."""

    def __call__(self, rows: Sequence[W_contra], on_token: OnToken, /) -> tuple[Sequence[R_co], Timings]: ...


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """Results, one per row, and where the time went."""

    results: tuple[R, ...]
    queue_s: float
    timings: Timings


class Job(Generic[W, R]):
    """Rows that are run together; `deadline` is on the clock of time.monotonic, infinite for none."""

    def __init__(
        self,
        call: EngineCall[W, R],
        rows: Sequence[W],
        *,
        deadline: float = math.inf,
        on_token: Callable[[int], None] | None = None,
    ) -> None:
        """`on_token` is called on the event loop with each new token of a job of one row."""
        self.call = call
        self.rows = tuple(rows)
        self.deadline = deadline
        self.longest = max((row.source.prompt.num_tokens for row in self.rows), default=0)
        self.submitted_at = time.monotonic()
        self.has_streamed = False
        self.is_settled = False
        self._on_token = on_token
        self._is_abandoned = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Outcome[R]] = self._loop.create_future()

    @property
    def is_dead(self) -> bool:
        """Whether nobody waits for it any more, or not for long enough."""
        return self._is_abandoned or time.monotonic() >= self.deadline

    def abandon(self) -> None:
        self._is_abandoned = True

    async def outcome(self) -> Outcome[R]:
        """Wait for the results; leaving the wait in any way abandons the job.

        Raises DeadlineError when the deadline passes first, and whatever the lane failed with.
        """
        remaining_s = None if math.isinf(self.deadline) else self.deadline - time.monotonic()
        try:
            async with asyncio.timeout(remaining_s):
                return await self._future
        except TimeoutError as error:
            raise DeadlineError(
                f"no answer within {self.deadline - self.submitted_at:.3f} s of queueing; allow a longer deadline_ms"
                " or try again when fewer requests are waiting"
            ) from error
        finally:
            self.abandon()

    # From here on: called on the lane's thread.

    def emit(self, token_id: int) -> bool:
        """Report a new token; returns whether anybody is still interested."""
        if self.is_dead:
            return False
        if self._on_token is not None:
            self.has_streamed = True
            self._post(self._on_token, token_id)
        return True

    def resolve(self, outcome: Outcome[R]) -> None:
        self.is_settled = True
        self._post(self._settle, outcome, None)

    def fail(self, error: Exception) -> None:
        self.is_settled = True
        self._post(self._settle, None, error)

    def _settle(self, outcome: Outcome[R] | None, error: Exception | None) -> None:
        if self._future.done():
            return
        if outcome is not None:
            self._future.set_result(outcome)
        elif error is not None:
            self._future.set_exception(error)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        # The loop is closed when the process ends before a batch does: then nobody is left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)
