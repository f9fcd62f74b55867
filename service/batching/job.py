"""A request in a lane: its plan, its deadline and its result.

Jobs are created and awaited on the event loop, and run on a lane's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from model.engine.plans import AttributionPlan, Plan, RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import Timings
from model.planning.costs import Cost, boost_tokens
from service.batching.shares import NOBODY, Client
from service.errors import DeadlineError

P = TypeVar("P", bound=Plan)
R = TypeVar("R")

ASSUMED_STEPS = 4
"""Decode steps that the size of a search assumes per identifier."""


class Load(Protocol):
    """How much work something is for a lane."""

    @property
    def num_rows(self) -> int: ...
    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        ...

    @property
    def size(self) -> int:
        """About how many tokens the network computes, in proportion to the run time."""
        ...

    @property
    def max_steps(self) -> int | None:
        """Limit of the length of a text; None for rankings."""
        ...


@dataclass(frozen=True)
class ExpectedLoad:
    """The load of a ranking that has not been planned."""

    num_rows: int
    longest: int
    size: int
    max_steps: int | None = None

    @classmethod
    def of(cls, cost: Cost) -> ExpectedLoad:
        size = cost.num_tokens + cost.num_beams * ASSUMED_STEPS + cost.boost_tokens
        return cls(cost.num_prompts, cost.tokens_per_prompt, size)


class _Settled(NamedTuple, Generic[R]):
    """How a job has ended."""

    result: R
    error: Exception | None


class Job(Generic[P, R]):
    """A plan to run. `deadline` is on the clock of time.monotonic; infinity means none."""

    def __init__(
        self,
        plan: P,
        *,
        deadline: float = math.inf,
        client: Client = NOBODY,
        on_token: Callable[[int], None] | None = None,
        is_bulk: bool = False,
    ) -> None:
        """`on_token` is called on the event loop with each new token of a text."""
        self.is_bulk = is_bulk
        """Whether it is of a body with many requests, and runs while none that came alone waits."""
        self.deadline = deadline
        self.client = client
        self.is_patient = isinstance(plan, AttributionPlan)
        """Whether all other jobs go first."""
        self.place = 0.0
        """Place in the queue's order, set by the queue."""
        self.submitted_at = time.monotonic()
        self.forecast_s = 0.0
        """Forecast at admission, before correction; 0 if the lane was idle or nothing was measured."""
        self.queue_s = 0.0
        self.timings = Timings()
        self.is_settled = False
        self.is_abandoned = False
        self._on_token = on_token
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[R] | None = None  # while somebody awaits the result
        self._when_settled: Callable[[], None] | None = None
        self._settled: _Settled[R] | None = None
        self._set_plan(plan)

    @property
    def max_steps(self) -> int | None:
        return self.plan.max_new_tokens if isinstance(self.plan, TextPlan) else None

    @property
    def time_budget_s(self) -> float:
        """Seconds from the last queueing to the deadline."""
        return self.deadline - self.queued_at

    @property
    def group(self) -> object:
        """Jobs of equal groups can share a batch: they use the same method of the engine."""
        return type(self.plan), self.is_bulk

    @property
    def is_expired(self) -> bool:
        """Whether it was abandoned or its deadline has passed."""
        return self.is_abandoned or self.is_late

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    async def admitted(self) -> None:
        """Returns at once: what was submitted is admitted."""

    def abandon(self) -> None:
        """The result is no longer needed; the lane skips the job or cancels its text."""
        self.is_abandoned = True

    async def result(self) -> R:
        """Wait for the result. A cancelled wait abandons the job.

        Raises DeadlineError if the deadline passes first, and the error that the lane failed the job with.
        """
        timer = None
        if self._settled is None:
            self._future = self._loop.create_future()
            if not math.isinf(self.deadline):
                timer = self._loop.call_later(max(0.0, self.deadline - time.monotonic()), self._expire)
        try:
            if self._future is not None:
                await self._future
            if (error := self.failure()) is not None:
                raise error
            return self.outcome()
        finally:
            if timer is not None:
                timer.cancel()
            self.abandon()

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call on the event loop once there is a result or an error. An abandoned job may never be settled."""
        self._when_settled = callback

    def failure(self) -> Exception | None:
        """The error of a settled job."""
        assert self._settled is not None, "the job is not settled"
        return self._settled.error

    def outcome(self) -> R:
        """The result of a settled job without an error."""
        assert self._settled is not None, "the job is not settled"
        return self._settled.result

    def _expire(self) -> None:
        self._settle(None, DeadlineError.of_queue(self.deadline - self.submitted_at))

    # Called on the lane's thread.

    def record_run(self, started_at: float, timings: Timings) -> None:
        """Add the times of one run, which started at `started_at`."""
        self.queue_s += started_at - self.queued_at
        self.timings += timings

    def continue_with(self, plan: P) -> None:
        """Replace the plan, for a further run. Its duration is not compared with the forecast."""
        self.forecast_s = 0.0
        self._set_plan(plan)

    def emit(self, token_id: int) -> None:
        """Report a new token of a text."""
        if self._on_token is not None:
            self._post(self._on_token, token_id)

    def resolve(self, result: R) -> None:
        self.is_settled = True
        self._post(self._settle, result, None)

    def fail(self, error: Exception) -> None:
        self.is_settled = True
        self._post(self._settle, None, error)

    @staticmethod
    def resolve_all(results: Sequence[tuple[Job[Any, R], R]]) -> None:
        """Resolve jobs of one event loop, which wakes up once for all of them."""
        for job, _ in results:
            job.is_settled = True
        if results:
            results[0][0]._post(_settle_all, results)  # noqa: SLF001  # of this very class

    def _set_plan(self, plan: P) -> None:
        self.plan = plan
        self.num_rows = len(plan.prompts)
        self.longest = plan.longest
        self.size = size_of(plan)
        self.queued_at = time.monotonic()

    def _settle(self, result: Any, error: Exception | None) -> None:  # noqa: ANN401  # an R without an error
        """Called on the event loop; the first one counts."""
        if self._settled is not None:
            return
        self._settled = _Settled(result, error)
        if self._future is not None and not self._future.done():
            self._future.set_result(result)
        if self._when_settled is not None:
            try:
                self._when_settled()
            except Exception as fault:  # noqa: BLE001  # others of the batch are to be settled, too
                self._loop.call_exception_handler({"message": "an answer could not be given", "exception": fault})

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        # A batch can outlast the event loop at shutdown; nobody awaits its results then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


AnyJob: TypeAlias = Job[Any, Any]


def _settle_all(results: Sequence[tuple[AnyJob, Any]]) -> None:
    for job, result in results:
        job._settle(result, None)  # noqa: SLF001  # a part of Job


def size_of(plan: Plan) -> int:
    """About how many tokens the network computes for a plan, in proportion to its run time."""
    prompts = plan.prompts
    num_tokens = prompts[0].num_tokens if len(prompts) == 1 else sum(prompt.num_tokens for prompt in prompts)
    match plan:
        case RankingPlan():
            boosts = 0 if plan.boosts is None else boost_tokens(plan.boosts.table.intervals.num_leaves)
            return num_tokens + plan.num_beams * ASSUMED_STEPS + boosts
        case ScoringPlan():
            return num_tokens + len(plan.prompts) * sum(map(len, plan.targets))
        case TextPlan():
            return num_tokens + plan.max_new_tokens * plan.num_beams
    raise AssertionError(f"{type(plan).__name__} has no size")
