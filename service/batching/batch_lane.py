"""The lane of rankings and scores: one batch after the other, each one call of the engine."""

# A batch is made of jobs, a job of rows; the engine sees rows only.

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from model.engine.memory import is_out_of_memory
from model.engine.protocol import Timings
from model.errors import EngineError
from service.batching.forecast import BatchForecast
from service.batching.job import CallJob, EngineCall, Outcome, R, W, Work
from service.batching.lane import Lane, OnCrash, failure_of, halves
from service.batching.loop_lag import LoopLag
from service.batching.queue import JobQueue, Room
from service.observability.metrics import Metrics
from service.settings import QueueLimits

logger = logging.getLogger(__name__)

AnyCallJob: TypeAlias = CallJob[Any, Any]


class BatchLane(Lane[AnyCallJob]):
    """Takes jobs by padded-token budget; a batch holds jobs of one method of the engine."""

    def __init__(
        self, limits: QueueLimits, metrics: Metrics, on_crash: OnCrash, loop_lag: LoopLag | None = None
    ) -> None:
        """`on_crash` is told when the lane itself has failed; `loop_lag` counts as part of a request's wait."""
        self._forecast = BatchForecast(limits)
        super().__init__("ranking", JobQueue(limits.max_waiting, self._forecast, loop_lag), metrics, on_crash)
        self._limits = limits
        self._room = Room(limits.max_batch_rows, limits.max_batch_tokens)

    def submit(self, call: EngineCall[W, R], rows: Sequence[W], *, deadline: float) -> CallJob[W, R]:
        """Queue rows for a method of the engine. Raises QueueFullError, OverloadedError or DrainingError."""
        job = CallJob(call, rows, deadline=deadline)
        self._queue.put(job)
        return job

    def submit_further(self, call: EngineCall[W, R], rows: Sequence[W], *, deadline: float) -> CallJob[W, R]:
        """Queue further work of a request that was admitted before, behind all that waits. Raises DrainingError."""
        job = CallJob(call, rows, deadline=deadline)
        self._queue.put_again(job)
        return job

    # From here on: the lane's thread.

    def _serve(self) -> None:
        while (batch := self._queue.take(self._room)) is not None:
            self._forecast.begin(batch)
            self._answer(batch)
            self._forecast.end()
            self._queue.let_go(batch)

    def _answer(self, batch: Sequence[AnyCallJob]) -> None:
        """Run a batch; if it fails, each half of it, so that in the end one bad row fails its own request only."""
        started_at = time.monotonic()
        try:
            with self._at_work():
                results, timings = self._call_engine(batch)
        except Exception as error:
            logger.exception("engine_failed", extra={"num_requests": len(batch)})
            self._answer_halves(batch, error)
            return
        first = 0
        for job in batch:
            share = tuple(results[first : first + len(job.rows)])
            first += len(job.rows)
            job.resolve(Outcome(results=share, queue_s=started_at - job.submitted_at, timings=timings))
        # Counted when the answers are on their way.
        self._metrics.observe_batch(len(results))
        for job in batch:
            self._metrics.observe_stages(started_at - job.submitted_at, timings)

    def _answer_halves(self, batch: Sequence[AnyCallJob], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].fail(failure_of(error))
            return
        for half in halves(batch):
            if alive := [job for job in half if not job.is_dead]:
                self._answer(alive)

    def _call_engine(self, batch: Sequence[AnyCallJob]) -> tuple[list[object], Timings]:
        rows: list[Work] = [row for job in batch for row in job.rows]
        results: list[object] = []
        encode_s = decode_s = 0.0
        for chunk in self._chunks(rows):
            part, timings = self._call_within_memory(batch[0].call, chunk)
            results.extend(part)
            encode_s += timings.encode_s
            decode_s += timings.decode_s
        return results, Timings(encode_s=encode_s, decode_s=decode_s)

    def _call_within_memory(self, call: EngineCall[Any, Any], rows: Sequence[Work]) -> tuple[list[object], Timings]:
        """One call, or two for half of the rows each where the memory does not suffice."""
        try:
            results, timings = call(rows)
        except Exception as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        else:
            if len(results) != len(rows):
                raise EngineError(f"the engine gave {len(results)} results for {len(rows)} rows")
            return list(results), timings
        # Outside of the handler, whose traceback would keep the memory of the failed call.
        self._metrics.count_split_batch(self.name)
        (first, first_s), (second, second_s) = (self._call_within_memory(call, half) for half in halves(rows))
        timings = Timings(first_s.encode_s + second_s.encode_s, first_s.decode_s + second_s.decode_s)
        return [*first, *second], timings

    def _chunks(self, rows: Sequence[Work]) -> Iterator[Sequence[Work]]:
        """Split the rows of a job that alone is over the budget; any other batch stays whole."""
        first, longest = 0, 0
        for place, row in enumerate(rows):
            longest = max(longest, row.source.prompt.num_tokens)
            num_rows = place + 1 - first
            is_over = num_rows > self._room.max_rows or num_rows * longest > self._room.max_tokens
            if is_over and place > first:
                yield rows[first:place]
                first, longest = place, row.source.prompt.num_tokens
        yield rows[first:]
