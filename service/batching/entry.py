"""What those who answer requests see of lanes, wherever the lanes run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import GeneratedText, Timings
from service.batching.bulk import Request
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


class Submissions(Protocol):
    """What takes the plans of one request."""

    def check(self, deadline: float, load: Load | None = None, client: Client = NOBODY) -> None:
        """As `Entry.check`."""
        ...

    def submit(self, plan: RankingPlan | ScoringPlan, *, deadline: float, client: Client = NOBODY) -> Waiting[Any]:
        """The result is a Ranking, or the LogProbs of an AttributionPlan."""
        ...


class Admission(Protocol):
    """Places in the lane for the requests of one body, by number."""

    def submit(
        self, number: int, plan: RankingPlan | ScoringPlan, *, deadline: float, client: Client = NOBODY
    ) -> Waiting[Any]:
        """Put a plan in a request's place; further plans of the request must find a place for themselves.

        Raises DrainingError; for further plans as `Submissions.submit`.
        """
        ...

    def give_up(self, number: int | None = None) -> None:
        """Free the place of a request that needs none, or all that are still held."""
        ...


class RankingEntry(Entry, Submissions, Protocol):
    """The lane of searches and scores."""

    async def admit(self, requests: Sequence[Request], client: Client = NOBODY) -> Admission:
        """Hold places for all requests of one body, or for none.

        Raises LoadTooLargeError, QueueFullError, OverloadedError or DrainingError.
        """
        ...


class Place:
    """The place of one admitted request."""

    def __init__(self, admission: Admission, number: int) -> None:
        self._admission = admission
        self._number = number

    def check(self, deadline: float, load: Load | None = None, client: Client = NOBODY) -> None:
        """Returns: the request has been admitted."""

    def submit(self, plan: RankingPlan | ScoringPlan, *, deadline: float, client: Client = NOBODY) -> Waiting[Any]:
        return self._admission.submit(self._number, plan, deadline=deadline, client=client)

    def give_up(self) -> None:
        """The request has ended; its place is free if it put nothing there."""
        self._admission.give_up(self._number)


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
