"""Records one request's progress for its log line, metrics and spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from model.degradation import Degradation, DegradationKind
from model.engine.protocol import Timings

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """A stage of a request; times are those of time.time_ns."""

    name: str
    started_ns: int
    ended_ns: int


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
    charge: Callable[[int], None] = field(default=lambda _: None, repr=False)
    """Counts tokens against the client's quota. Raises RateLimitedError."""
    num_items: int | None = None
    num_invalid: int = 0
    degraded: tuple[DegradationKind, ...] = ()
    error_code: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    traceparent: str | None = None
    """The W3C traceparent header of the caller's span."""
    trace_id: str | None = None
    """Set at the end of the request if its trace is sampled."""
    started_ns: int = field(default_factory=time.time_ns)
    spans: list[Span] = field(default_factory=list)

    _contexts: ExitStack = field(default_factory=ExitStack, repr=False)
    _until_answer: ExitStack = field(default_factory=ExitStack, repr=False)

    def hold(self, context: AbstractContextManager[T]) -> T:
        """Enter a context, and exit it after the response is sent."""
        return self._contexts.enter_context(context)

    def hold_until_answer(self, context: AbstractContextManager[T]) -> T:
        """Enter a context, and exit it when the response begins, which a client that does not read cannot delay."""
        return self._until_answer.enter_context(context)

    def begin_answer(self) -> None:
        """Called before the response is sent. Idempotent."""
        self._until_answer.close()

    def end(self) -> None:
        """Exit all held contexts; called once, by the creator of the trace."""
        self._until_answer.close()
        self._contexts.close()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the duration of the block."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self._note_spans({name: time.perf_counter() - started_at})

    def note_engine(self, queue_s: float, timings: Timings) -> None:
        """Record the stages in the lane, which ran one after the other and have just ended."""
        self._note_spans({"queue": queue_s, "encode": timings.encode_s, "decode": timings.decode_s})

    def note_stage(self, name: str, duration_s: float) -> None:
        self.stages_ms[name] = round(duration_s * 1000, 3)

    def _note_spans(self, durations_s: dict[str, float]) -> None:
        started_ns = time.time_ns() - round(sum(durations_s.values()) * 1e9)
        for name, duration_s in durations_s.items():
            self.note_stage(name, duration_s)
            ended_ns = started_ns + round(duration_s * 1e9)
            self.spans.append(Span(name, started_ns, ended_ns))
            started_ns = ended_ns

    def note_degraded(self, degraded: Sequence[Degradation]) -> None:
        self.degraded = tuple(dict.fromkeys(each.kind for each in degraded))
