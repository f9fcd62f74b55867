"""The lanes of one engine, and the ways through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from model.engine.protocol import Engine, GeneratedText, Ranking, RankingWork, ScoringWork, TextWork, Timings
from service.batching.batch_lane import BatchLane
from service.batching.job import Job, Outcome
from service.batching.lane import OnCrash
from service.batching.loop_lag import LoopLag
from service.batching.text_lane import TextLane
from service.observability.metrics import Metrics
from service.settings import QueueLimits


class Lanes:
    """One lane for items, one for text, so that an explanation never holds up a recommendation.

    Texts take at most one step for each batch of recommendations that runs, and wait for none for long.
    """

    def __init__(self, engine: Engine, limits: QueueLimits, metrics: Metrics, on_crash: OnCrash) -> None:
        """`on_crash` is told on a lane's thread when a lane itself has failed."""
        self._engine = engine
        self._loop_lag = LoopLag()
        self._watching: asyncio.Task[None] | None = None
        self.ranking = BatchLane(limits, metrics, on_crash, self._loop_lag)
        self.text = TextLane(engine.open_texts, limits, metrics, on_crash, self.ranking.wait_idle, self._loop_lag)
        metrics.watch_lanes(
            num_running=lambda: self.ranking.num_running + self.text.num_running,
            num_waiting=lambda: self.ranking.num_waiting + self.text.num_waiting,
        )

    @property
    def all(self) -> tuple[BatchLane, TextLane]:
        return self.ranking, self.text

    def start(self) -> None:
        """Called on the event loop, which is watched from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._loop_lag.watch())
        self.ranking.start()
        self.text.start()

    async def close(self, timeout_s: float) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(self.ranking.close(timeout_s), self.text.close(timeout_s))

    async def rank(self, work: RankingWork, *, deadline: float) -> Outcome[Ranking]:
        """Rank; each widening of a certified search waits behind all that came meanwhile.

        Raises QueueFullError, OverloadedError, DrainingError, DeadlineError and EngineError.
        """
        outcome = await self.ranking.submit(self._engine.search, [work], deadline=deadline).outcome()
        while (wider := self._engine.widened(work, outcome.results[0])) is not None:
            further = self.ranking.submit_further(self._engine.search, [wider], deadline=deadline)
            outcome = _together(outcome, await further.outcome())
        return outcome

    async def score(self, works: Sequence[ScoringWork], *, deadline: float) -> Outcome[tuple[float, ...]]:
        """Raises what `rank` raises."""
        return await self.ranking.submit(self._engine.score, works, deadline=deadline).outcome()

    def generate(
        self, work: TextWork, *, deadline: float, on_token: Callable[[int], None] | None = None
    ) -> Job[TextWork, GeneratedText]:
        """Queue a text; `on_token` is called on the event loop.

        Raises QueueFullError, OverloadedError and DrainingError.
        """
        return self.text.submit(work, deadline=deadline, on_token=on_token)


def _together(before: Outcome[Ranking], after: Outcome[Ranking]) -> Outcome[Ranking]:
    """The later result, with the time of both."""
    timings = Timings(
        encode_s=before.timings.encode_s + after.timings.encode_s,
        decode_s=before.timings.decode_s + after.timings.decode_s,
    )
    return replace(after, queue_s=before.queue_s + after.queue_s, timings=timings)
