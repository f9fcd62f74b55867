"""The lane of searches and scores: one batch after another, each usually one call of the engine."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from model.engine.memory import is_out_of_memory
from model.engine.plans import AttributionPlan, RankingPlan, ScoringPlan
from model.engine.protocol import Engine, LogProbs, Ranking, Timings
from model.engine.scores import ranking_of_scores
from model.errors import EngineError
from service.batching.bulk import Places, Request
from service.batching.composition import BatchBudget
from service.batching.forecast import BatchForecast
from service.batching.job import ExpectedLoad, Job, size_of
from service.batching.lane import Lane, OnCrash, failure_of, halves
from service.batching.loop_lag import LoopLag
from service.batching.queue import JobQueue
from service.batching.shares import NOBODY, Client
from service.errors import DrainingError
from service.observability.metrics import Metrics
from service.settings.options import QueueLimits

logger = logging.getLogger(__name__)

ATTRIBUTION_SHARE = 8
"""A part of an attribution, or of one of many requests, is at most a batch divided by this. An attribution's takes
about QueueLimits.attribution_part_s, or as long as a batch of rankings if that is more, but has LEAST_PROMPTS: rankings
that come meanwhile wait for it."""

LEAST_PROMPTS = 4
"""Of a part, as far as the share of a batch allows: a call of the engine costs about as much as some prompts."""

AnyPlan: TypeAlias = RankingPlan | ScoringPlan
RankingJob: TypeAlias = Job[AnyPlan, Any]
"""Its result is a Ranking, or the LogProbs of an AttributionPlan."""
EngineCall: TypeAlias = Callable[[Sequence[Any]], tuple[Sequence[Any], Timings]]


class BatchLane(Lane[RankingJob]):
    """Runs batches within a budget of padded tokens. All plans of a batch use the same method of the engine.

    Candidates that exceed the budget are scored in parts, between which other requests run and the deadline is checked.
    """

    def __init__(
        self, engine: Engine, limits: QueueLimits, metrics: Metrics, on_crash: OnCrash, loop_lag: LoopLag | None = None
    ) -> None:
        """`on_crash` is called when the lane itself fails; forecasts add `loop_lag` to a request's wait."""
        self._engine = engine
        self._forecast = BatchForecast(limits)
        super().__init__("ranking", JobQueue(limits.max_waiting, self._forecast, loop_lag), metrics, on_crash)
        self._is_waking = False
        self._budget = BatchBudget(limits.max_batch_rows, limits.max_batch_tokens)
        self._bulk_budget = BatchBudget(limits.max_batch_rows, limits.max_batch_tokens // ATTRIBUTION_SHARE)
        self._limits = limits

    def submit(self, plan: AnyPlan, *, deadline: float, client: Client = NOBODY) -> RankingJob:
        """Queue a plan. Each widening of a certified search, and each part of a long one, goes to the queue's end.

        Raises QueueFullError, OverloadedError and DrainingError.
        """
        job: RankingJob = Job(plan, deadline=deadline, client=client)
        self._queue.put(job, wakes=False)
        self._wake_soon()
        return job

    async def admit(self, requests: Sequence[Request], client: Client = NOBODY) -> AdmittedJobs:
        """Hold places for all requests of one body, or for none. Raises as `JobQueue.admit`."""
        return self.admitted(requests, client)

    def admitted(self, requests: Sequence[Request], client: Client) -> AdmittedJobs:
        """`admit` for those who cannot wait."""
        return AdmittedJobs(self._queue, self._queue.admit(requests, client), self._wake_soon)

    def _wake_soon(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        """Wake the thread once for all plans of one pass of the event loop: it then waits for the GIL."""
        self._is_waking = False
        self._queue.wake()

    # On the lane's thread.

    def _serve(self) -> None:
        while (batch := self._queue.take(self._budget, patient=self._attribution_budget())) is not None:
            begin = self._forecast.begin_patient if batch[0].is_patient else self._forecast.begin
            begin(sum(size_of(self._next_part(job)) for job in batch))
            continued = self._answer(batch)
            self._forecast.end()
            self._queue.mark_done(batch)
            for job, plan in continued.items():
                self._continue(job, plan)

    def _answer(self, batch: Sequence[RankingJob]) -> dict[RankingJob, AnyPlan]:
        """Run a batch; returns the jobs that continue, with their next plans.

        If the batch fails, its halves run separately, until a failing plan fails its own request only.
        """
        started_at = time.monotonic()
        parts = [self._next_part(job) for job in batch]
        try:
            with self._engine_call():
                results, timings = self._run_plans(parts)
            outcomes = [self._outcome(*each) for each in zip([job.plan for job in batch], parts, results, strict=True)]
        except Exception as error:
            logger.exception("engine_failed", extra={"num_requests": len(batch)})
            return self._answer_halves(batch, error)
        # Counted before the answers go out: whoever has an answer finds it in the metrics.
        self._metrics.observe_batch(sum(len(plan.prompts) for plan in parts))
        continued: dict[RankingJob, AnyPlan] = {}
        answered: list[tuple[RankingJob, Ranking | LogProbs]] = []
        for job, outcome in zip(batch, outcomes, strict=True):
            self._metrics.observe_stages(None if job.is_bulk else started_at - job.queued_at, timings)
            job.record_run(started_at, timings)
            if isinstance(outcome, RankingPlan | ScoringPlan):
                continued[job] = outcome
            else:
                answered.append((job, outcome))
        Job.resolve_all(answered)
        return continued

    def _next_part(self, job: RankingJob) -> AnyPlan:
        """The job's plan, or as many of its prompts as fit into the budget if all of them do not."""
        plan = job.plan
        num_prompts = len(plan.prompts)
        budget = self._bulk_budget if job.is_bulk else self._budget
        if isinstance(plan, AttributionPlan):
            budget = self._attribution_budget()
            least = LEAST_PROMPTS * size_of(plan) / max(1, num_prompts)
            budget = replace(budget, max_size=max(budget.max_size, least))
        if isinstance(plan, RankingPlan) or budget.allows(num_prompts, plan.longest, size_of(plan)):
            return plan
        num_fitting = math.ceil(num_prompts / budget.num_batches(num_prompts, plan.longest, size_of(plan)))
        return plan if num_fitting == num_prompts else plan.first(num_fitting)

    def _attribution_budget(self) -> BatchBudget:
        """Of all attributions that run together."""
        limits = self._limits
        size = self._forecast.patient_size(limits.attribution_part_s)
        return BatchBudget(limits.max_batch_rows, limits.max_batch_tokens // ATTRIBUTION_SHARE, size)

    def _outcome(
        self,
        plan: AnyPlan,
        part: AnyPlan,
        result: Any,  # noqa: ANN401  # depends on the plan
    ) -> Ranking | LogProbs | AnyPlan:
        """The answer to a plan whose part ran, or the next plan: a wider search, or the prompts that are left."""
        if isinstance(plan, ScoringPlan):
            if part is plan and not isinstance(plan, AttributionPlan):
                return ranking_of_scores(plan, result, is_exact=self._engine.is_exact)
            if len(result) != len(part.prompts):
                raise EngineError(f"the engine gave {len(result)} results for {len(part.prompts)} prompts")
            if part is plan and isinstance(plan, AttributionPlan):
                return plan.all_scored(result)
            return plan.after(result)
        wider = self._engine.widened(plan, result)
        return result if wider is None else wider

    def _answer_halves(self, batch: Sequence[RankingJob], error: Exception) -> dict[RankingJob, AnyPlan]:
        continued: dict[RankingJob, AnyPlan] = {}
        if len(batch) == 1:
            batch[0].fail(failure_of(error))
            return continued
        for half in halves(batch):
            if alive := [job for job in half if not job.is_expired]:
                continued |= self._answer(alive)
        return continued

    def _continue(self, job: RankingJob, plan: AnyPlan) -> None:
        job.continue_with(plan)
        try:
            self._queue.put_continued(job)
        except DrainingError as error:
            job.fail(error)

    def _run_plans(self, plans: Sequence[AnyPlan]) -> tuple[list[Any], Timings]:
        """The engine's result for each plan. What exceeds the memory runs in halves."""
        num_rows = sum(len(plan.prompts) for plan in plans)
        call: EngineCall = self._engine.score if isinstance(plans[0], ScoringPlan) else self._engine.search
        try:
            results, timings = call(plans)
        except Exception as error:
            if num_rows == 1 or not is_out_of_memory(error):
                raise
        else:
            if len(results) != len(plans):
                raise EngineError(f"the engine gave {len(results)} results for {len(plans)} plans")
            return list(results), timings
        # Outside the except block, whose traceback keeps the failed call's memory allocated.
        self._metrics.count_split_batch(self.name)
        return self._run_halves(plans)

    def _run_halves(self, plans: Sequence[AnyPlan]) -> tuple[list[Any], Timings]:
        """Run the halves of several plans, or of the prompts of a single one."""
        if len(plans) > 1:
            runs = [self._run_plans(half) for half in halves(plans)]
            results = [result for part, _ in runs for result in part]
        else:
            (plan,) = plans
            assert isinstance(plan, ScoringPlan), "a search has one prompt"
            runs = [self._run_plans([part]) for part in plan.parts(2)]
            results = [tuple(log_probs for (part,), _ in runs for log_probs in part)]
        return results, sum((timings for _, timings in runs), Timings())


class AdmittedJobs:
    """Places for the requests of one body."""

    def __init__(self, queue: JobQueue[RankingJob], places: Places, wake_soon: Callable[[], None]) -> None:
        self._queue = queue
        self._places = places
        self._wake_soon = wake_soon

    def submit(self, number: int, plan: AnyPlan, *, deadline: float, client: Client = NOBODY) -> RankingJob:
        """Put a plan in a request's place. Raises DrainingError; for a request's further plans as `JobQueue.admit`."""
        job: RankingJob = Job(plan, deadline=deadline, client=client, is_bulk=True)
        places = self._places
        if number not in places.held:
            load = ExpectedLoad(job.num_rows, job.longest, job.size)
            places, number = self._queue.admit([Request(load, deadline)], client), 0
        self._queue.put_admitted(job, places, number)
        self._wake_soon()
        return job

    def give_up(self, number: int | None = None) -> None:
        self._queue.give_up(self._places, number)
