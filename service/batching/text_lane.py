"""The lane of texts: each text joins when a row is free and leaves when it ends (continuous batching)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from model.engine.memory import is_out_of_memory
from model.engine.plans import TextPlan
from model.engine.protocol import GeneratedText, TextProgress, TextSession, Timings
from service.batching.composition import BatchBudget
from service.batching.forecast import TextForecast
from service.batching.job import Job
from service.batching.lane import Lane, OnCrash, failure_of, halves
from service.batching.loop_lag import LoopLag
from service.batching.queue import JobQueue
from service.batching.shares import NOBODY, Client
from service.batching.steps import RunningShare, StepShares, may_take_row
from service.observability.metrics import Metrics
from service.settings.options import QueueLimits

logger = logging.getLogger(__name__)

TextJob: TypeAlias = Job[TextPlan, GeneratedText]

MAX_JOINING_TOKENS = 1024
"""Limit of the padded prompt tokens that join between two steps, since encoding them delays the running texts."""

MAX_YIELD_S = 0.1
"""Longest wait of a step for a running batch of rankings: running both at once slows both down."""


@dataclass
class _Running:
    """A text that has a row."""

    job: TextJob
    admitted_at: float
    encode_s: float
    num_steps: int = 0


class TextLane(Lane[TextJob]):
    """Runs a text session of the engine in a loop: admit waiting texts, take a step, deliver tokens."""

    def __init__(
        self,
        open_texts: Callable[[int], TextSession],
        limits: QueueLimits,
        metrics: Metrics,
        on_crash: OnCrash,
        yield_to_batches: Callable[[float], None],
        loop_lag: LoopLag | None = None,
    ) -> None:
        """`on_crash` is called when the lane itself fails.

        `yield_to_batches(timeout_s)` is called before each step and waits for a running batch of rankings.
        """
        self._forecast = TextForecast(limits.max_batch_rows)
        super().__init__("text", JobQueue(limits.max_waiting, self._forecast, loop_lag), metrics, on_crash)
        self._limits = limits
        self._yield_to_batches = yield_to_batches
        self._session = open_texts(limits.max_batch_rows)
        self._running: dict[int, _Running] = {}
        self._shares = StepShares()
        self._yield_credit_s = MAX_YIELD_S
        self._is_out_of_memory = False

    def submit(
        self,
        plan: TextPlan,
        *,
        deadline: float,
        client: Client = NOBODY,
        on_token: Callable[[int], None] | None = None,
    ) -> TextJob:
        """Queue a text; `on_token` is called on the event loop with each new token.

        Raises QueueFullError, OverloadedError or DrainingError.
        """
        job: TextJob = Job(plan, deadline=deadline, client=client, on_token=on_token)
        self._queue.put(job)
        return job

    # On the lane's thread.

    def _serve(self) -> None:
        while (joining := self._take()) is not None or self._running:
            if joining:
                self._admit(joining)
            self._cancel_expired()
            if self._running:
                self._give_way()
                self._step(self._shares.choose())

    def _take(self) -> list[TextJob] | None:
        return self._queue.take(self._budget(), waits=not self._running, may_join=self._may_join)

    def _may_join(self, joining: Sequence[TextJob], job: TextJob) -> bool:
        """Whether the job's client may take another row beside those of its jobs that are joining."""
        num_own = self._shares.num_rows(job.client) + sum(each.client.name == job.client.name for each in joining)
        return may_take_row(job.client, num_own, self._session.num_free - len(joining))

    def _give_way(self) -> None:
        """Wait for a running batch of rankings: not longer than steps take on average if clients have shares."""
        is_shared = any(running.job.client.name for running in self._running.values())
        longest_s = min(MAX_YIELD_S, self._yield_credit_s) if is_shared else MAX_YIELD_S
        started_at = time.monotonic()
        self._yield_to_batches(longest_s)
        self._yield_credit_s = max(0.0, self._yield_credit_s - (time.monotonic() - started_at))

    def _budget(self) -> BatchBudget:
        if not self._running:
            return BatchBudget(self._session.num_free, self._limits.max_batch_tokens)
        if self._is_out_of_memory:
            return BatchBudget(0, 0)
        return BatchBudget(self._session.num_free, min(MAX_JOINING_TOKENS, self._limits.max_batch_tokens))

    def _admit(self, jobs: Sequence[TextJob]) -> None:
        """Give jobs rows. If that fails, admit each half separately, until a bad prompt fails its own request only."""
        started_at = time.monotonic()
        try:
            with self._engine_call():
                rows = self._session.admit([job.plan for job in jobs])
        except Exception as error:
            logger.exception("engine_failed", extra={"num_requests": len(jobs)})
            self._admit_halves(jobs, error)
            return
        now = time.monotonic()
        self._metrics.observe_batch(len(rows))
        for row, job in zip(rows, jobs, strict=True):
            self._running[row] = _Running(job, started_at, now - started_at)
            self._shares.begin(RunningShare(row, job.client, job.plan.num_beams, job.size))
        self._forecast.record_admission(now - started_at, len(self._running))

    def _admit_halves(self, jobs: Sequence[TextJob], error: Exception) -> None:
        if len(jobs) > 1:
            if is_out_of_memory(error):
                self._metrics.count_split_batch(self.name)
            for half in halves(jobs):
                self._admit(half)
        elif is_out_of_memory(error) and self._running:
            self._is_out_of_memory = True  # until a text ends and frees memory
            self._queue.return_to_front(jobs)
        else:
            self._queue.mark_done(jobs)
            jobs[0].fail(failure_of(error))

    def _cancel_expired(self) -> None:
        for row, running in list(self._running.items()):
            if running.job.is_expired:
                self._session.cancel(row)
                self._end(row)

    def _step(self, rows: Sequence[int]) -> None:
        """One step of the texts in these rows; if it fails, one step of each half."""
        started_at = time.monotonic()
        try:
            with self._engine_call():
                progress = self._session.step(rows)
        except Exception as error:
            logger.exception("engine_failed", extra={"num_requests": len(rows)})
            self._step_halves(rows, error)
            return
        duration_s = time.monotonic() - started_at
        self._forecast.record_step(duration_s, len(self._running))
        self._shares.record(rows, duration_s)
        self._yield_credit_s = min(MAX_YIELD_S, self._yield_credit_s + duration_s)
        for row in rows:
            self._running[row].num_steps += 1
        for each in progress:
            self._deliver(each)

    def _step_halves(self, rows: Sequence[int], error: Exception) -> None:
        if len(rows) == 1:
            (row,) = rows
            self._session.cancel(row)
            self._end(row).job.fail(failure_of(error))
            return
        if is_out_of_memory(error):
            self._metrics.count_split_batch(self.name)
        for half in halves(rows):
            self._step(half)

    def _deliver(self, progress: TextProgress) -> None:
        job = self._running[progress.row].job
        if progress.token_id is not None:
            job.emit(progress.token_id)
        if progress.failure is not None:
            self._end(progress.row).job.fail(failure_of(progress.failure))
        elif progress.finished is not None:
            self._finish(self._end(progress.row), progress.finished)

    def _finish(self, running: _Running, text: GeneratedText) -> None:
        now = time.monotonic()
        timings = Timings(running.encode_s, now - running.admitted_at - running.encode_s)
        running.job.record_run(running.admitted_at, timings)
        self._forecast.record_text(running.num_steps)
        self._metrics.observe_stages(running.job.queue_s, timings)
        running.job.resolve(text)

    def _end(self, row: int) -> _Running:
        self._is_out_of_memory = False
        ended = self._running.pop(row)
        self._shares.end(row)
        self._queue.mark_done([ended.job])
        return ended
