"""Lag of the event loop. Under load a request waits for the loop too, before and after the engine."""

from __future__ import annotations

import asyncio
import time

INTERVAL_S = 0.05
MIN_LAG_S = 0.02
"""Shorter delays are within the accuracy of timers and count as no lag."""
DECAY = 0.8
"""Weight of the past while the lag falls."""


class LoopLag:
    """Moving average of the lag that follows a rise at once and a fall slowly."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """Current delay of a scheduled callback; 0 while the loop keeps up."""
        return self._seconds if self._seconds >= MIN_LAG_S else 0.0

    def record(self, late_s: float) -> None:
        self._seconds = max(late_s, DECAY * self._seconds + (1 - DECAY) * late_s)

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(INTERVAL_S)
            self.record(time.monotonic() - started_at - INTERVAL_S)
