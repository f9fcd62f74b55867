"""A lane: one queue and the one thread that takes batches from it and runs the engine."""

# A batch is made of jobs, a job of rows; the engine sees rows only.

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from model.engine.protocol import OnToken, Timings
from model.errors import EngineError
from service.batching.job import EngineCall, Job, Outcome, R, W, Work
from service.batching.queue import AnyJob, DrainRate, JobQueue
from service.errors import DrainingError
from service.metrics import Metrics
from service.settings import QueueLimits

logger = logging.getLogger(__name__)


class Lane:
    """Runs jobs in batches, in the order of arrival. Two lanes do not wait for each other."""

    def __init__(self, name: str, limits: QueueLimits, metrics: Metrics) -> None:
        self._name = name
        self._limits = limits
        self._metrics = metrics
        self._drain_rate = DrainRate()
        self._queue = JobQueue(limits, self._drain_rate)
        self._thread = threading.Thread(target=self._serve, name=f"lane-{name}", daemon=True)
        self._batch: list[AnyJob] = []

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def num_running(self) -> int:
        return sum(not job.is_settled for job in self._batch)

    def start(self) -> None:
        self._thread.start()

    async def close(self, timeout_s: float) -> None:
        """Take no more jobs, let the running batch end, and give up on it after `timeout_s`."""
        for job in self._queue.close():
            job.fail(DrainingError("the service ended before the request was run", retry_after_s=1))
        await asyncio.to_thread(self._thread.join, timeout_s)

    def submit(
        self,
        call: EngineCall[W, R],
        rows: Sequence[W],
        *,
        deadline: float,
        on_token: Callable[[int], None] | None = None,
    ) -> Job[W, R]:
        """Queue rows for a method of the engine. Raises QueueFullError or DrainingError."""
        job = Job(call, rows, deadline=deadline, on_token=on_token)
        self._queue.put(job)
        return job

    # From here on: the lane's thread.

    def _serve(self) -> None:
        while (batch := self._queue.take()) is not None:
            self._batch = batch
            started_at = time.monotonic()
            self._run(batch)
            busy_s = time.monotonic() - started_at
            self._drain_rate.record(len(batch), busy_s)
            self._metrics.observe_busy(self._name, busy_s)
            self._batch = []

    def _run(self, batch: list[AnyJob]) -> None:
        """Run a batch; if it fails, each of its jobs alone, so that one bad row fails its own request only."""
        started_at = time.monotonic()
        try:
            results, timings = self._call_engine(batch)
        except Exception as error:
            logger.exception("engine_failed", extra={"num_requests": len(batch)})
            self._fail_or_retry(batch, error)
            return
        self._metrics.observe_batch(len(results))
        first = 0
        for job in batch:
            share = tuple(results[first : first + len(job.rows)])
            first += len(job.rows)
            queue_s = started_at - job.submitted_at
            self._metrics.observe_stages(queue_s, timings)
            job.resolve(Outcome(results=share, queue_s=queue_s, timings=timings))

    def _fail_or_retry(self, batch: list[AnyJob], error: Exception) -> None:
        for job in batch:
            # What has been streamed cannot be taken back, so such a job is not started again.
            if len(batch) == 1 or job.has_streamed:
                failure = EngineError("the model failed at this request; the log names the cause under its request_id")
                failure.__cause__ = error
                job.fail(failure)
            elif not job.is_dead:
                self._run([job])

    def _call_engine(self, batch: list[AnyJob]) -> tuple[list[object], Timings]:
        call = batch[0].call
        owners = [job for job in batch for _ in job.rows]
        rows: list[Work] = [row for job in batch for row in job.rows]
        results: list[object] = []
        encode_s = decode_s = 0.0
        for chunk in self._chunks(rows):
            part, timings = call([rows[i] for i in chunk], _reporter(owners, chunk))
            if len(part) != len(chunk):
                raise EngineError(f"the engine gave {len(part)} results for {len(chunk)} rows")
            results.extend(part)
            encode_s += timings.encode_s
            decode_s += timings.decode_s
        return results, Timings(encode_s=encode_s, decode_s=decode_s)

    def _chunks(self, rows: Sequence[Work]) -> Iterator[range]:
        """Split the rows of a job that alone is over the budget; any other batch stays whole."""
        first, longest = 0, 0
        for place, row in enumerate(rows):
            longest = max(longest, row.source.prompt.num_tokens)
            num_rows = place + 1 - first
            is_over = num_rows > self._limits.max_batch_rows or num_rows * longest > self._limits.max_batch_tokens
            if is_over and place > first:
                yield range(first, place)
                first, longest = place, row.source.prompt.num_tokens
        yield range(first, len(rows))


def _reporter(owners: Sequence[AnyJob], chunk: range) -> OnToken:
    def on_token(row: int, token_id: int) -> bool:
        return owners[chunk[row]].emit(token_id)

    return on_token
