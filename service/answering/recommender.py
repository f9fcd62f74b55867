"""Answers requests for items: plans, fetches image features, runs the engine, and maps leaves back to items.

HTTP routes and the command line share this path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from feature_cache.background import Background
from model.degradation import DegradationKind
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import Ranking, Timings
from model.engine.scores import ranking_of_scores
from model.errors import InputError
from model.planning.costs import Cost, direct_cost, sequential_cost
from model.planning.domain import ServedDomain
from model.planning.images import without_images
from model.planning.rankings import plan_direct, plan_sequential
from service.answering.answers import Degraded, Recommendation, RecommendedItem
from service.answering.attribution import charge_attribution, with_reasons
from service.answering.beam_reduction import BeamReduction, NoReduction
from service.answering.image_features import fetch_features, hidden_rows
from service.answering.shadows import Shadows
from service.batching.entry import Entries
from service.batching.job import ExpectedLoad
from service.batching.shares import Client
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.settings import RequestLimits
from service.versions.domain_version import DomainVersion
from service.versions.domains import Domains

LONG_PLAN_TOKENS = 8_192
"""Prompts of more tokens than this are assembled in a thread."""


class Recommender:
    """Answers sequential and direct requests."""

    def __init__(
        self,
        domains: Domains,
        lanes: Entries,
        metrics: Metrics,
        limits: RequestLimits,
        beams: BeamReduction | NoReduction,
        background: Background,
    ) -> None:
        self._domains = domains
        self._lanes = lanes
        self._metrics = metrics
        self._limits = limits
        self._beams = beams
        self._shadows = Shadows(domains, lanes, metrics, background, self.answer_from)

    async def aclose(self) -> None:
        """Cancel background work."""
        await self._shadows.close()

    async def recommend(self, request: SequentialRequest | DirectRequest, trace: RequestTrace) -> Recommendation:
        """Raises InputError kinds, QueueFullError, OverloadedError, DrainingError, DeadlineError and EngineError."""
        self._check_lengths(request)
        started_at = time.perf_counter()
        key = request.user_id or trace.request_id
        lease = trace.hold_until_answer(
            self._domains.lease(request.domain, key, is_ranking=True, holder=trace.request_id, role=request.role)
        )
        deadline = time.monotonic() + self._deadline_s(request)
        if request.attribution is not None:
            await charge_attribution(request, _cost(lease.version.domain, request), self._limits.max_tokens, trace)
        answer = await self.answer_from(lease.version, request, trace)
        answer = await with_reasons(answer, lease.version, request, self._lanes.ranking, trace, deadline)
        self._metrics.count_invalid_items(trace.num_invalid)
        if answer.num_beams_effective:
            self._metrics.observe_exact_prefix(answer.exact_prefix)
        self._metrics.count_degraded(trace.degraded)
        if DegradationKind.BEAMS_REDUCED in trace.degraded:
            self._metrics.count_reduced_beams()
        duration_s = time.perf_counter() - started_at
        self._metrics.observe_version(request.domain, lease.version.ref.version, lease.role, duration_s)
        if lease.role == "stable":
            self._shadows.repeat(request, answer)
        return answer

    async def answer_from(
        self, version: DomainVersion, request: SequentialRequest | DirectRequest, trace: RequestTrace
    ) -> Recommendation:
        """Answer with a version that the caller holds a lease of, without updating the metrics of requests."""
        started_at = time.perf_counter()
        deadline = time.monotonic() + self._deadline_s(request)
        domain = version.domain
        trace.domain = domain.name
        lane, client = self._lanes.ranking, Client(trace.client, trace.share)
        cost = _cost(domain, request)
        cost.check(self._limits.max_tokens)
        load = ExpectedLoad.of(cost)
        lane.check(deadline, load if cost.num_prompts > 1 else None, client)  # reject before planning
        if trace.charge is not None:
            await trace.charge(load.size)
        with trace.stage("plan"):
            plan = await _planned(domain, request, cost)
        if isinstance(plan, RankingPlan) and request.num_beams is None:
            plan = self._beams.reduce(plan, deadline)
        with trace.stage("features"):
            plan = await fetch_features(version, plan)
        if request.mask_images:
            plan = without_images(plan, domain, [hidden_rows(domain, request.mask_images)] * len(plan.prompts))
        if isinstance(plan, ScoringPlan) and not plan.prompts:
            ranking = ranking_of_scores(plan, ())
            trace.note_engine(0.0, Timings())
        else:
            job = lane.submit(plan, deadline=deadline, client=client)
            ranking = await job.result()
            trace.note_engine(job.queue_s, job.timings)
        trace.note_stage("total", time.perf_counter() - started_at)
        return _answer(version, plan, ranking, trace, has_timings=request.timings)

    def _deadline_s(self, request: SequentialRequest | DirectRequest) -> float:
        return self._limits.default_deadline_s if request.deadline_ms is None else request.deadline_ms / 1000

    def _check_lengths(self, request: SequentialRequest | DirectRequest) -> None:
        if isinstance(request, SequentialRequest):
            _check_length("history", request.history, self._limits.max_history)
            _check_length("include_items", request.include_items, self._limits.max_candidates)
        else:
            _check_length("candidates", request.candidates, self._limits.max_candidates)


def _cost(domain: ServedDomain, request: SequentialRequest | DirectRequest) -> Cost:
    if isinstance(request, SequentialRequest):
        return sequential_cost(domain, request)
    return direct_cost(domain, request)


async def _planned(
    domain: ServedDomain, request: SequentialRequest | DirectRequest, cost: Cost
) -> RankingPlan | ScoringPlan:
    """The plan; made in a thread if that would occupy the event loop for long."""
    if cost.num_tokens <= LONG_PLAN_TOKENS and domain.filters.is_quick(request.where):
        return _plan(domain, request)
    return await asyncio.to_thread(_plan, domain, request)


def _plan(domain: ServedDomain, request: SequentialRequest | DirectRequest) -> RankingPlan | ScoringPlan:
    if isinstance(request, SequentialRequest):
        return plan_sequential(domain, request)
    return plan_direct(domain, request)


def _answer(
    version: DomainVersion,
    plan: RankingPlan | ScoringPlan,
    ranking: Ranking,
    trace: RequestTrace,
    *,
    has_timings: bool,
) -> Recommendation:
    domain = version.domain
    leaves, scores = ranking.leaves, ranking.scores
    if isinstance(plan, RankingPlan):
        is_valid = plan.eligibility.admits(leaves)
        trace.num_invalid = len(leaves) - int(is_valid.sum())
        leaves, scores = leaves[is_valid], scores[is_valid]
    found = zip(domain.rows_of(leaves).tolist(), scores.tolist(), strict=True)
    degraded = (*plan.degraded, *domain.degraded)
    trace.num_items = len(leaves)
    trace.note_degraded(degraded)
    return Recommendation(
        items=[_item(domain, rank, row, score) for rank, (row, score) in enumerate(found, start=1)],
        exact_prefix=min(ranking.exact_prefix, len(leaves)),
        num_beams_effective=ranking.num_beams,
        degraded=[Degraded(each.kind.value, each.detail) for each in degraded],
        domain=domain.name,
        bundle=domain.bundle_hash,
        catalog_revision=version.catalog_revision,
        request_id=trace.request_id,
        timings_ms=dict(trace.stages_ms) if has_timings else None,
    )


def _item(domain: ServedDomain, rank: int, row: int, score: float) -> RecommendedItem:
    catalog = domain.catalog
    return RecommendedItem(
        rank=rank,
        item_id=catalog.item_ids[row],
        score=score,
        title=catalog.titles[row],
        image=catalog.images[row],
        attributes=catalog.attributes(row),
    )


def _check_length(field: str, item_ids: Sequence[str] | None, limit: int) -> None:
    if item_ids is not None and len(item_ids) > limit:
        raise InputError(f"{field} has {len(item_ids)} items, the limit is {limit}; send fewer", field=field)
