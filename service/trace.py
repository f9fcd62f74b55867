"""What is noted about one request while it is answered, for its log line and its metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from model.engine.plans import Degradation


@dataclass
class RequestTrace:
    """Filled in along the way. Never holds a history, a name or a key."""

    request_id: str
    route: str = "unmatched"
    domain: str = ""
    num_items: int | None = None
    degraded: tuple[str, ...] = ()
    error_code: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note how long the block took."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self.note_stage(name, time.perf_counter() - started_at)

    def note_stage(self, name: str, duration_s: float) -> None:
        self.stages_ms[name] = round(duration_s * 1000, 3)

    def note_degraded(self, degraded: Sequence[Degradation]) -> None:
        self.degraded = tuple(dict.fromkeys(each.kind for each in degraded))
