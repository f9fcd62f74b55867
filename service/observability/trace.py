"""Records one request's progress for its log line, metrics and spans."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, TypeVar

from model.degradation import Degradation, DegradationKind
from model.engine.protocol import Timings

T = TypeVar("T")


class Span(NamedTuple):
    """A stage of a request; times are those of time.time_ns."""

    name: str
    started_ns: int
    ended_ns: int


class Charging(Protocol):
    """What counts a request's tokens against a quota."""

    async def take(self, num_tokens: int) -> None:
        """Raises RateLimitedError."""
        ...

    async def take_for_many(self, num_tokens: int) -> None:
        """As `take`, for all requests of one body. Raises LoadTooLargeError if the quota never allows so many."""
        ...

    def give_back(self, num_tokens: int) -> None:
        """Undo a part, for a request that no work was done for."""
        ...


@dataclass
class RequestTrace:
    """The record of one request. Never contains histories, names or keys."""

    request_id: str
    route: str = "unmatched"
    domain: str = ""
    client: str = ""
    """The id of the request's API key, if it has one."""
    share: float = 1.0
    """Weight of the client's share of the engine."""
    charge: Charging | None = field(default=None, repr=False)
    """Counts tokens against the client's quota, if it has one."""
    num_requests: int | None = None
    """Of a body with many requests: their number, and how many got a problem document."""
    num_failed: int | None = None
    num_items: int | None = None
    num_invalid: int = 0
    noticed: tuple[Degradation, ...] = ()
    """What degrades the answer and was noticed before the request was planned."""
    degraded: tuple[DegradationKind, ...] = ()
    error_code: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    traceparent: str | None = None
    """The W3C traceparent header of the caller's span."""
    trace_id: str | None = None
    """Set at the end of the request if its trace is sampled."""
    started_ns: int = field(default_factory=time.time_ns)

    _ended: list[tuple[int, dict[str, float]]] = field(default_factory=list, repr=False)
    _contexts: list[AbstractContextManager[object]] = field(default_factory=list, repr=False)
    _until_answer: list[AbstractContextManager[object]] = field(default_factory=list, repr=False)

    def hold(self, context: AbstractContextManager[T]) -> T:
        """Enter a context, and exit it after the response is sent."""
        return _entered(context, self._contexts)

    def hold_until_answer(self, context: AbstractContextManager[T]) -> T:
        """Enter a context, and exit it when the response begins, which a client that does not read cannot delay."""
        return _entered(context, self._until_answer)

    def begin_answer(self) -> None:
        """Called before the response is sent. Idempotent."""
        _exit(self._until_answer)

    def end(self) -> None:
        """Exit all held contexts; called once, by the creator of the trace."""
        _exit(self._until_answer)
        _exit(self._contexts)

    def stage(self, name: str) -> Stage:
        """Record the duration of the block."""
        return Stage(self, name)

    def note_engine(self, queue_s: float, timings: Timings) -> None:
        """Record the stages in the lane, which ran one after the other and have just ended."""
        self.note_spans({"queue": queue_s, "encode": timings.encode_s, "decode": timings.decode_s})

    def note_stage(self, name: str, duration_s: float) -> None:
        self.stages_ms[name] = round(duration_s * 1000, 3)

    def note_spans(self, durations_s: dict[str, float]) -> None:
        """Record stages that ran one after the other and have just ended."""
        self._ended.append((time.time_ns(), durations_s))
        for name, duration_s in durations_s.items():
            self.note_stage(name, duration_s)

    @property
    def spans(self) -> list[Span]:
        """The stages so far, in order; only sampled traces need them."""
        spans: list[Span] = []
        for last_ns, durations_s in self._ended:
            started_ns = last_ns - round(sum(durations_s.values()) * 1e9)
            for name, duration_s in durations_s.items():
                ended_ns = started_ns + round(duration_s * 1e9)
                spans.append(Span(name, started_ns, ended_ns))
                started_ns = ended_ns
        return spans

    def note_degraded(self, degraded: Sequence[Degradation]) -> None:
        self.degraded = tuple(dict.fromkeys(each.kind for each in degraded))


class Stage:
    """A stage of a request while it runs."""

    __slots__ = ("_name", "_started_at", "_trace")

    def __init__(self, trace: RequestTrace, name: str) -> None:
        self._trace = trace
        self._name = name

    def __enter__(self) -> None:
        self._started_at = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._trace.note_spans({self._name: time.perf_counter() - self._started_at})


def _entered(context: AbstractContextManager[T], held: list[AbstractContextManager[object]]) -> T:
    value = context.__enter__()
    held.append(context)
    return value


def _exit(held: list[AbstractContextManager[object]]) -> None:
    """Exit contexts, the last one first, all of them even if one fails."""
    while held:
        context = held.pop()
        try:
            context.__exit__(None, None, None)
        except BaseException:
            _exit(held)
            raise
