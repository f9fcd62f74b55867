"""A request in a lane: its plan, its deadline, and what became of it.

A job is made and awaited on the event loop, and run on a lane's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from model.engine.plans import Plan, RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import Timings
from service.errors import DeadlineError

P = TypeVar("P", bound=Plan)
R = TypeVar("R")

LEVELS = 4
"""Steps that an item's identifier is assumed to need when the size of a search is estimated."""


class Job(Generic[P, R]):
    """A plan to run; `deadline` is on the clock of time.monotonic, infinite for none."""

    def __init__(self, plan: P, *, deadline: float = math.inf, on_token: Callable[[int], None] | None = None) -> None:
        """`on_token` is called on the event loop with each new token of a text."""
        self.deadline = deadline
        self.submitted_at = time.monotonic()
        self.forecast_s = 0.0
        """How long it was forecast to take when it was queued; 0 where nothing was in its way."""
        self.queue_s = 0.0
        self.timings = Timings()
        self.is_settled = False
        self._on_token = on_token
        self._is_abandoned = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[R] = self._loop.create_future()
        self._set_plan(plan)

    @property
    def num_rows(self) -> int:
        return len(self.plan.prompts)

    @property
    def allowance_s(self) -> float:
        """The time from queueing, by a continued request its last one, to the deadline."""
        return self.deadline - self.queued_at

    @property
    def group(self) -> object:
        """Jobs of equal groups may run in one batch: those that use the same method of the engine."""
        return type(self.plan)

    @property
    def is_dead(self) -> bool:
        """Whether nobody waits for it any more, or not for long enough."""
        return self._is_abandoned or self.is_late

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def abandon(self) -> None:
        self._is_abandoned = True

    async def result(self) -> R:
        """Wait for the result; leaving the wait in any way abandons the job.

        Raises DeadlineError when the deadline passes first, and whatever the lane failed with.
        """
        remaining_s = None if math.isinf(self.deadline) else self.deadline - time.monotonic()
        try:
            async with asyncio.timeout(remaining_s):
                return await self._future
        except TimeoutError as error:
            raise DeadlineError(
                f"no answer within {self.deadline - self.submitted_at:.3f} s of queueing; allow a longer deadline_ms"
                " or retry when fewer requests are waiting"
            ) from error
        finally:
            self.abandon()

    # From here on: called on the lane's thread.

    def note_run(self, started_at: float, timings: Timings) -> None:
        """Add one run of the plan to the job's times."""
        self.queue_s += started_at - self.queued_at
        self.timings += timings

    def continue_with(self, plan: P) -> None:
        """Run another plan for the same request; its time is not compared with the forecast."""
        self.forecast_s = 0.0
        self._set_plan(plan)

    def emit(self, token_id: int) -> None:
        """Report a new token to whoever asked for it."""
        if self._on_token is not None:
            self._post(self._on_token, token_id)

    def resolve(self, result: R) -> None:
        self.is_settled = True
        self._post(self._settle, result, None)

    def fail(self, error: Exception) -> None:
        self.is_settled = True
        self._post(self._settle, None, error)

    def _set_plan(self, plan: P) -> None:
        self.plan = plan
        self.longest = plan.longest
        self.size = size_of(plan)
        self.queued_at = time.monotonic()

    def _settle(self, result: R, error: Exception | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        # The loop is closed if the process ends before a batch does: then nobody waits for the result.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


AnyJob: TypeAlias = Job[Any, Any]


def size_of(plan: Plan) -> int:
    """About how many tokens go through the network for a plan; its run time is assumed to grow with them."""
    num_tokens = sum(prompt.num_tokens for prompt in plan.prompts)
    match plan:
        case RankingPlan():
            return num_tokens + plan.num_beams * LEVELS
        case ScoringPlan():
            return num_tokens + len(plan.prompts) * sum(map(len, plan.targets))
        case TextPlan():
            return num_tokens + plan.max_new_tokens * plan.num_beams
    raise AssertionError(f"{type(plan).__name__} has no size")
