"""Answers requests for items: plans, fetches image features, runs the engine, and maps leaves back to items.

HTTP routes and the command line share this path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from feature_cache.background import Background
from model.bundle.catalog import Catalog
from model.degradation import Degradation, DegradationKind
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import Ranking, Timings
from model.engine.scores import ranking_of_scores
from model.errors import InputError
from model.planning.costs import Cost, direct_cost, sequential_cost
from model.planning.domain import ServedDomain
from model.planning.popular import PopularItems
from model.planning.rankings import plan_direct, plan_sequential
from service.answering.answers import Degraded, Recommendation, RecommendedItem
from service.answering.attribution import charge_attribution, with_reasons
from service.answering.beam_reduction import BeamReduction, NoReduction
from service.answering.image_features import fetch_features, with_masked
from service.answering.shadows import Shadows
from service.answering.stored_histories import StoredHistories
from service.batching.entry import Entries, Submissions
from service.batching.job import ExpectedLoad
from service.batching.shares import Client
from service.observability.metrics import Metrics
from service.observability.metrics.metrics import Steering
from service.observability.trace import RequestTrace
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.settings.options import RequestLimits
from service.versions.domain_version import DomainVersion, Lease
from service.versions.domains import Domains

LONG_PLAN_TOKENS = 8_192
"""Prompts of more tokens than this are assembled in a thread."""


class Opened(NamedTuple):
    """A request that is to be answered by this version until this deadline."""

    lease: Lease
    deadline: float


@dataclass(frozen=True)
class RankingRules:
    """How requests for items are answered."""

    limits: RequestLimits
    beams: BeamReduction | NoReduction
    histories: StoredHistories


class Recommender:
    """Answers sequential and direct requests."""

    def __init__(
        self,
        domains: Domains,
        lanes: Entries,
        metrics: Metrics,
        rules: RankingRules,
        background: Background,
    ) -> None:
        self._domains = domains
        self._lanes = lanes
        self._metrics = metrics
        self._limits = rules.limits
        self._beams = rules.beams
        self._histories = rules.histories
        self._shadows = Shadows(domains, lanes, metrics, background, self.answer_from)

    async def aclose(self) -> None:
        """Cancel background work."""
        await self._shadows.close()

    async def recommend(self, request: SequentialRequest | DirectRequest, trace: RequestTrace) -> Recommendation:
        """Raises InputError kinds, QueueFullError, OverloadedError, DrainingError, DeadlineError and EngineError.

        For a request without a history also NoHistoryError and HistoriesUnavailableError.
        """
        opened = self.open(request, trace, time.monotonic())
        found = request if _is_complete(request) else await self.completed(opened, request, trace)
        if isinstance(found, Recommendation):
            return found
        if found.attribution is not None:
            domain = opened.lease.version.domain
            await charge_attribution(found, cost_of(domain, found), self._limits.max_tokens, trace)
        return await self.answer(opened, found, trace, self._lanes.ranking)

    def open(self, request: SequentialRequest | DirectRequest, trace: RequestTrace, now: float) -> Opened:
        """Choose the version for a request that came at `now`, and lease it to the trace. Raises InputError kinds."""
        self._check_lengths(request)
        key = request.user_id or trace.request_id
        lease = trace.hold_until_answer(
            self._domains.lease(request.domain, key, is_ranking=True, holder=trace.request_id, role=request.role)
        )
        return Opened(lease, now + self._deadline_s(request))

    async def completed(
        self, opened: Opened, request: SequentialRequest | DirectRequest, trace: RequestTrace
    ) -> SequentialRequest | DirectRequest | Recommendation:
        """The request with the stored history of its user if it has none, or the popular items in place of an answer.

        Raises InputError kinds, NoHistoryError and HistoriesUnavailableError.
        """
        version = opened.lease.version
        found = await self._histories.completed(version.domain, request, trace)
        if isinstance(found, PopularItems):
            return self._popular(version, found, request, trace)
        return await self._histories.rotated(version.domain, found, trace)

    def _popular(
        self,
        version: DomainVersion,
        found: PopularItems,
        request: SequentialRequest | DirectRequest,
        trace: RequestTrace,
    ) -> Recommendation:
        """The answer for a user without a history."""
        trace.domain = version.domain.name
        trace.note_engine(0.0, Timings())
        for stage in ("plan", "features"):
            trace.note_stage(stage, 0.0)
        trace.note_stage("total", trace.stages_ms["history"] / 1000)
        answer = _answer(version, found.degraded, found.ranking, trace, has_timings=request.timings)
        self._metrics.count_degraded(trace.degraded)
        return answer

    async def answer(
        self, opened: Opened, request: SequentialRequest | DirectRequest, trace: RequestTrace, lane: Submissions
    ) -> Recommendation:
        """Answer a request in this lane, and count it. Raises as `recommend`."""
        started_at = time.perf_counter()
        lease, deadline = opened
        answer = await self.answer_from(lease.version, request, trace, deadline, lane)
        if request.attribution is not None:
            answer = await with_reasons(answer, lease.version, request, lane, trace, deadline)
        if request.rotate is not None:
            self._histories.note_shown(lease.version.domain, request, [item.item_id for item in answer.items])
        if trace.num_invalid:
            self._metrics.count_invalid_items(trace.num_invalid)
        if answer.num_beams_effective:
            self._metrics.observe_exact_prefix(answer.exact_prefix)
        self._metrics.count_degraded(trace.degraded)
        for by in _steered_by(lease.version.domain, request):
            self._metrics.count_steered(by)
        if DegradationKind.BEAMS_REDUCED in trace.degraded:
            self._metrics.count_reduced_beams()
        duration_s = time.perf_counter() - started_at
        self._metrics.observe_version(request.domain, lease.version.ref.version, lease.role, duration_s)
        if lease.role == "stable":
            self._shadows.repeat(request, answer)
        return answer

    async def answer_from(
        self,
        version: DomainVersion,
        request: SequentialRequest | DirectRequest,
        trace: RequestTrace,
        deadline: float | None = None,
        lane: Submissions | None = None,
    ) -> Recommendation:
        """Answer with a version that the caller holds a lease of, without updating the metrics of requests.

        By default, the request came just now, and alone.
        """
        started_at = time.perf_counter()
        deadline = time.monotonic() + self._deadline_s(request) if deadline is None else deadline
        lane = lane or self._lanes.ranking
        domain = version.domain
        trace.domain = domain.name
        client = Client(trace.client, trace.share)
        cost = cost_of(domain, request)
        cost.check(self._limits.max_tokens)
        load = ExpectedLoad.of(cost)
        lane.check(deadline, load if cost.num_prompts > 1 else None, client)  # reject before planning
        if trace.charge is not None:
            await trace.charge.take(load.size)
        with trace.stage("plan"):
            plan = await _planned(domain, request, cost)
        if isinstance(plan, RankingPlan) and request.num_beams is None:
            plan = self._beams.reduce(plan, deadline)
        with trace.stage("features"):
            plan = await fetch_features(version, plan)
        if request.mask_images:
            plan = with_masked(plan, domain, request.mask_images)
        if isinstance(plan, ScoringPlan) and not plan.prompts:
            ranking = ranking_of_scores(plan, ())
            trace.note_engine(0.0, Timings())
        else:
            job = lane.submit(plan, deadline=deadline, client=client)
            ranking = await job.result()
            trace.note_engine(job.queue_s, job.timings)
        trace.note_stage("total", time.perf_counter() - started_at)
        noted = (*plan.degraded, *_shortness(plan, ranking))
        if isinstance(plan, RankingPlan):
            ranking = _admitted(plan, ranking, trace)
        return _answer(version, noted, ranking, trace, has_timings=request.timings)

    def _deadline_s(self, request: SequentialRequest | DirectRequest) -> float:
        return self._limits.default_deadline_s if request.deadline_ms is None else request.deadline_ms / 1000

    def _check_lengths(self, request: SequentialRequest | DirectRequest) -> None:
        if isinstance(request, SequentialRequest):
            _check_length("history", request.history, self._limits.max_history)
            _check_length("include_items", request.include_items, self._limits.max_candidates)
        else:
            _check_length("candidates", request.candidates, self._limits.max_candidates)


def _is_complete(request: SequentialRequest | DirectRequest) -> bool:
    """Whether nothing is read from the store of histories for it."""
    return request.rotate is None and (isinstance(request, DirectRequest) or bool(request.history))


def cost_of(domain: ServedDomain, request: SequentialRequest | DirectRequest) -> Cost:
    """The estimated cost of a request that has not been planned."""
    if isinstance(request, SequentialRequest):
        return sequential_cost(domain, request)
    return direct_cost(domain, request)


def _steered_by(domain: ServedDomain, request: SequentialRequest | DirectRequest) -> Iterator[Steering]:
    """What has a say in the list beside the model."""
    if request.boost is not None:
        yield "boost"
    if request.domain_boosts and domain.rules:
        yield "domain_boosts"
    if request.max_per:
        yield "max_per"
    if request.rotate is not None:
        yield "rotate"


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


def _admitted(plan: RankingPlan, ranking: Ranking, trace: RequestTrace) -> Ranking:
    """The ranking without items that the plan does not allow, of which there should be none."""
    is_valid = plan.eligibility.admits(ranking.leaves)
    trace.num_invalid = len(ranking.leaves) - int(np.count_nonzero(is_valid))
    if not trace.num_invalid:
        return ranking
    boosted = None if ranking.boosted is None else ranking.boosted[is_valid]
    return replace(ranking, leaves=ranking.leaves[is_valid], scores=ranking.scores[is_valid], boosted=boosted)


def _answer(
    version: DomainVersion,
    noted: Sequence[Degradation],
    ranking: Ranking,
    trace: RequestTrace,
    *,
    has_timings: bool,
) -> Recommendation:
    domain = version.domain
    leaves, scores, boosted = ranking.leaves, ranking.scores, ranking.boosted
    boosted_scores: list[float] | list[None] = [None] * len(leaves) if boosted is None else boosted.tolist()
    found = zip(domain.rows_of(leaves).tolist(), scores.tolist(), boosted_scores, strict=True)
    degraded = (*trace.noticed, *noted, *domain.degraded)
    trace.num_items = len(leaves)
    trace.note_degraded(degraded)
    return Recommendation(
        items=_items(domain.catalog, found),
        exact_prefix=min(ranking.exact_prefix, len(leaves)),
        num_beams_effective=ranking.num_beams,
        degraded=[Degraded(each.kind.value, each.detail) for each in degraded],
        domain=domain.name,
        bundle=domain.bundle_hash,
        catalog_revision=version.catalog_revision,
        request_id=trace.request_id,
        timings_ms=dict(trace.stages_ms) if has_timings else None,
    )


def _shortness(plan: RankingPlan | ScoringPlan, ranking: Ranking) -> tuple[Degradation, ...]:
    if not ranking.is_short:
        return ()
    detail = (
        f"max_per leaves {len(ranking.leaves)} of k = {plan.k} items of those that {ranking.num_beams} beams found; "
        "raise num_beams, or send exactness certified"
    )
    return (Degradation(DegradationKind.LIMITS_UNFILLED, detail),)


def _items(catalog: Catalog, found: Iterable[tuple[int, float, float | None]]) -> list[RecommendedItem]:
    """Items in order, from their rows, scores and boosted scores."""
    item_ids, titles, images, attributes = catalog.item_ids, catalog.titles, catalog.images, catalog.attributes
    return [
        RecommendedItem(rank, item_ids[row], score, titles[row], images[row], attributes(row), None, boosted_score)
        for rank, (row, score, boosted_score) in enumerate(found, start=1)
    ]


def _check_length(field: str, item_ids: Sequence[str] | None, limit: int) -> None:
    if item_ids is not None and len(item_ids) > limit:
        raise InputError(f"{field} has {len(item_ids)} items, the limit is {limit}; send fewer", field=field)
