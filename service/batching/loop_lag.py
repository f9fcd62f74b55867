"""How late the event loop is: under load a request waits for it too, before and after the engine."""

from __future__ import annotations

import asyncio
import time

INTERVAL_S = 0.05
LEAST_S = 0.02
"""What is less is the clock's, and not a loop that has too much to do."""
KEPT = 0.8


class LoopLag:
    """Follows a rise at once and a fall slowly."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """How long a callback waits now before it runs; 0 for a loop that keeps up."""
        return self._seconds if self._seconds >= LEAST_S else 0.0

    def note(self, late_s: float) -> None:
        self._seconds = max(late_s, KEPT * self._seconds + (1 - KEPT) * late_s)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(INTERVAL_S)
            self.note(time.monotonic() - started_at - INTERVAL_S)
