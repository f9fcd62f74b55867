"""One request's rows for the engine.

A job is made and awaited on the event loop, and run on a lane's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from model.engine.protocol import RankingWork, ScoringWork, TextWork, Timings
from service.errors import DeadlineError

Work: TypeAlias = RankingWork | ScoringWork | TextWork

W = TypeVar("W", bound=Work)
R = TypeVar("R")

EngineCall: TypeAlias = Callable[[Sequence[W]], tuple[Sequence[R], Timings]]
"""One method of the engine."""

LEVELS = 4
"""Steps that an item's identifier is taken to need where the size of a search is guessed."""


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
        rows: Sequence[W],
        *,
        deadline: float = math.inf,
        on_token: Callable[[int], None] | None = None,
    ) -> None:
        """`on_token` is called on the event loop with each new token of a text."""
        self.rows = tuple(rows)
        self.deadline = deadline
        self.longest = max((row.source.prompt.num_tokens for row in self.rows), default=0)
        self.size = sum(size_of(row) for row in self.rows)
        self.submitted_at = time.monotonic()
        self.forecast_s = 0.0
        """How long it was forecast to take when it was queued; 0 where nothing was in its way."""
        self.is_settled = False
        self._on_token = on_token
        self._is_abandoned = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Outcome[R]] = self._loop.create_future()

    @property
    def allowance_s(self) -> float:
        """How long it was given in all."""
        return self.deadline - self.submitted_at

    @property
    def group(self) -> object:
        """Jobs of equal groups may run in one batch."""
        return None

    @property
    def is_dead(self) -> bool:
        """Whether nobody waits for it any more, or not for long enough."""
        return self._is_abandoned or self.is_late

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

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

    def emit(self, token_id: int) -> None:
        """Report a new token to whoever asked for it."""
        if self._on_token is not None:
            self._post(self._on_token, token_id)

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


class CallJob(Job[W, R]):
    """A job for one method of the engine."""

    def __init__(self, call: EngineCall[W, R], rows: Sequence[W], *, deadline: float = math.inf) -> None:
        super().__init__(rows, deadline=deadline)
        self.call = call

    @property
    def group(self) -> object:
        return self.call


AnyJob: TypeAlias = Job[Any, Any]


def size_of(row: Work) -> int:
    """About how many tokens go through the network for a row, which is what its time is taken to grow with."""
    num_tokens = row.source.prompt.num_tokens
    match row:
        case RankingWork():
            return num_tokens + row.num_beams * LEVELS
        case ScoringWork():
            return num_tokens + sum(map(len, row.targets))
        case TextWork():
            return num_tokens + row.max_new_tokens * row.num_beams
