"""The lanes of one engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feature_cache.background import Background
from model.engine.protocol import Engine
from service.batching.batch_lane import BatchLane
from service.batching.lane import OnCrash
from service.batching.loop_lag import LoopLag
from service.batching.text_lane import TextLane
from service.observability.metrics import Metrics
from service.settings.options import QueueLimits


class Lanes:
    """One lane for rankings and one for texts, so that explanations do not delay recommendations.

    Between two batches of rankings, texts take at most one step; each step waits for a running batch only briefly.
    """

    def __init__(self, engine: Engine, limits: QueueLimits, metrics: Metrics, on_crash: OnCrash) -> None:
        """`on_crash` is called on a lane's thread when the lane itself fails."""
        self._loop_lag = LoopLag()
        self.ranking = BatchLane(engine, limits, metrics, on_crash, self._loop_lag)
        self.text = TextLane(engine.open_texts, limits, metrics, on_crash, self.ranking.wait_idle, self._loop_lag)
        metrics.watch_lanes(
            num_running=lambda: self.ranking.num_running + self.text.num_running,
            num_waiting=lambda: self.ranking.num_waiting + self.text.num_waiting,
        )

    @property
    def all(self) -> tuple[BatchLane, TextLane]:
        return self.ranking, self.text

    @asynccontextmanager
    async def running(self, background: Background, close_s: float) -> AsyncIterator[None]:
        """Run the threads in the block, and measure the lag of the calling event loop; closing takes `close_s`."""
        async with background.kept("loop_lag", self._loop_lag.watch):
            self.ranking.start()
            self.text.start()
            try:
                yield
            finally:
                await asyncio.gather(self.ranking.close(close_s), self.text.close(close_s))
