"""What those who answer requests see of lanes, wherever the lanes run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import GeneratedText, Timings
from service.batching.job import Load
from service.batching.shares import NOBODY, Client
from service.errors import ServiceError

R_co = TypeVar("R_co", covariant=True)


class Waiting(Protocol[R_co]):
    """A request in a lane."""

    queue_s: float
    timings: Timings

    @property
    def submitted_at(self) -> float:
        """On the clock of time.monotonic."""
        ...

    async def admitted(self) -> None:
        """Wait until the lane has admitted the request.

        Raises QueueFullError, OverloadedError or DrainingError, unless `submit` has.
        """
        ...

    async def result(self) -> R_co:
        """Wait for the result. A cancelled wait abandons the request.

        Raises DeadlineError if the deadline passes first, what `admitted` raises, and EngineError.
        """
        ...

    def abandon(self) -> None:
        """The result is no longer needed."""
        ...


class Entry(Protocol):
    """A lane as far as it is the same for all kinds of requests."""

    @property
    def num_waiting(self) -> int: ...

    def completion_s(self) -> float:
        """Forecast seconds until all waiting requests are done."""
        ...

    def check(self, deadline: float, load: Load | None = None, client: Client = NOBODY) -> None:
        """Reject a request of this load that the lane cannot answer in time, before it is planned.

        Raises QueueFullError, OverloadedError or DrainingError.
        """
        ...

    def recent_refusal(self, client: Client, deadline_s: float) -> ServiceError | None:
        """Why a request with so much time until its deadline is refused, as far as that is known at no cost."""
        ...


class RankingEntry(Entry, Protocol):
    """The lane of searches and scores."""

    def submit(self, plan: RankingPlan | ScoringPlan, *, deadline: float, client: Client = NOBODY) -> Waiting[Any]:
        """The result is a Ranking, or the LogProbs of an AttributionPlan."""
        ...


class TextEntry(Entry, Protocol):
    """The lane of texts."""

    def submit(
        self,
        plan: TextPlan,
        *,
        deadline: float,
        client: Client = NOBODY,
        on_token: Callable[[int], None] | None = None,
    ) -> Waiting[GeneratedText]:
        """`on_token` is called on the event loop with each new token."""
        ...


class Entries(Protocol):
    """The lanes of one engine."""

    @property
    def ranking(self) -> RankingEntry: ...

    @property
    def text(self) -> TextEntry: ...
