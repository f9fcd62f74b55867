"""Answers requests for items: plan, fetch images, run the engine, map what it found to the catalog.

The HTTP routes and the command line go this same way. Knows no web framework.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility
from model.engine.protocol import Timings
from model.errors import InputError
from model.planning.domain import ServedDomain
from model.planning.planning import plan_direct, plan_sequential
from model.planning.plans import Degradation, PointwisePlan, RankingPlan
from service.answering.beam_reduction import KIND as BEAMS_REDUCED
from service.answering.beam_reduction import BeamReduction, NoReduction
from service.answering.prompt_features import PromptFeatures, deadline_in, fetch_features, untrained
from service.answering.shadows import Shadows
from service.batching.lanes import Lanes
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.base import DegradedBody
from service.schemas.ranking import (
    DirectRequest,
    RankedItem,
    RankingAnswer,
    SequentialRequest,
    TimingsBody,
)
from service.settings import RequestLimits
from service.versions.domain_version import DomainVersion
from service.versions.domains import Domains


@dataclass(frozen=True)
class _Found:
    """What the engine found: catalog rows with scores, best first."""

    ranked: Sequence[tuple[int, float]]
    exact_prefix: int
    num_beams: int
    num_invalid: int = 0


class Recommender:
    """Answers both kinds of requests for items."""

    def __init__(
        self,
        domains: Domains,
        lanes: Lanes,
        metrics: Metrics,
        limits: RequestLimits,
        beams: BeamReduction | NoReduction,
    ) -> None:
        self._domains = domains
        self._lanes = lanes
        self._metrics = metrics
        self._limits = limits
        self._beams = beams
        self._shadows = Shadows(domains, lanes, metrics, self.answer_from)

    async def close(self) -> None:
        """End what runs in the background."""
        await self._shadows.close()

    async def recommend_sequential(self, request: SequentialRequest, trace: RequestTrace) -> RankingAnswer:
        """Raises InputError kinds, QueueFullError, DeadlineError and EngineError."""
        _check_length("history", request.history, self._limits.max_history)
        _check_length("include_items", request.include_items, self._limits.max_candidates)
        return await self._recommend(request, trace)

    async def recommend_direct(self, request: DirectRequest, trace: RequestTrace) -> RankingAnswer:
        """Raises InputError kinds, QueueFullError, DeadlineError and EngineError."""
        _check_length("candidates", request.candidates, self._limits.max_candidates)
        return await self._recommend(request, trace)

    async def _recommend(self, request: SequentialRequest | DirectRequest, trace: RequestTrace) -> RankingAnswer:
        started_at = time.perf_counter()
        key = request.user_id or trace.request_id
        lease = trace.hold(self._domains.lease(request.domain, key, is_ranking=True))
        found, answer = await self._find(lease.version, request, trace)
        self._metrics.count_invalid_items(found.num_invalid)
        if found.num_beams:
            self._metrics.observe_exact_prefix(found.exact_prefix)
        self._metrics.count_degraded(trace.degraded)
        if BEAMS_REDUCED in trace.degraded:
            self._metrics.count_reduced_beams()
        duration_s = time.perf_counter() - started_at
        self._metrics.observe_version(request.domain, lease.version.ref.version, lease.role, duration_s)
        if lease.role == "stable":
            self._shadows.repeat(request, answer)
        return answer

    async def answer_from(
        self, version: DomainVersion, request: SequentialRequest | DirectRequest, trace: RequestTrace
    ) -> RankingAnswer:
        """What a version answers, whoever holds on to it; nothing of it is counted."""
        _, answer = await self._find(version, request, trace)
        return answer

    async def _find(
        self, version: DomainVersion, request: SequentialRequest | DirectRequest, trace: RequestTrace
    ) -> tuple[_Found, RankingAnswer]:
        started_at = time.perf_counter()
        given_s = None if request.deadline_ms is None else request.deadline_ms / 1000
        deadline = deadline_in(self._limits.default_deadline_s if given_s is None else given_s)
        domain = version.domain
        trace.domain = domain.name
        self._lanes.ranking.check(deadline)  # before any work is done for it
        with trace.stage("plan"):
            plan = _plan(domain, request)
        if isinstance(plan, RankingPlan) and request.num_beams is None:
            plan = self._beams.reduce(plan, deadline)
        with trace.stage("features"):
            features = await fetch_features(version, plan.prompts)
        if isinstance(plan, PointwisePlan):
            found = await self._score(plan, features, deadline, trace)
        else:
            found = await self._search(domain, plan, features, deadline, trace)
        degraded = (*plan.degraded, *features.degraded, *untrained(domain))
        trace.note_stage("total", time.perf_counter() - started_at)
        return found, _answer(version, found, degraded, trace, has_timings=request.timings)

    async def _search(
        self, domain: ServedDomain, plan: RankingPlan, features: PromptFeatures, deadline: float, trace: RequestTrace
    ) -> _Found:
        work = plan.work(features.rows)
        outcome = await self._lanes.rank(work, deadline=deadline)
        trace.note_engine(outcome.queue_s, outcome.timings)
        (ranking,) = outcome.results
        rows = domain.rows_of(ranking.leaves)
        found = zip(rows.tolist(), ranking.scores.tolist(), strict=True)
        ranked = list(compress(found, _are_eligible(plan.eligibility, ranking.leaves).tolist()))
        return _Found(ranked, ranking.exact_prefix, ranking.num_beams, num_invalid=len(rows) - len(ranked))

    async def _score(
        self, plan: PointwisePlan, features: PromptFeatures, deadline: float, trace: RequestTrace
    ) -> _Found:
        """Every candidate is scored, so whatever is returned is the true top."""
        work = plan.work(features.rows)
        if not work:
            trace.note_engine(0.0, Timings(encode_s=0.0, decode_s=0.0))
            return _Found(ranked=(), exact_prefix=0, num_beams=0)
        outcome = await self._lanes.score(work, deadline=deadline)
        trace.note_engine(outcome.queue_s, outcome.timings)
        ranked = plan.rank(outcome.results)
        return _Found(ranked=ranked, exact_prefix=len(ranked), num_beams=0)


def _plan(domain: ServedDomain, request: SequentialRequest | DirectRequest) -> RankingPlan | PointwisePlan:
    if isinstance(request, SequentialRequest):
        return plan_sequential(domain, request.query)
    return plan_direct(domain, request.query)


def _answer(
    version: DomainVersion, found: _Found, degraded: Sequence[Degradation], trace: RequestTrace, *, has_timings: bool
) -> RankingAnswer:
    domain = version.domain
    trace.num_items = len(found.ranked)
    trace.note_degraded(degraded)
    return RankingAnswer(
        items=[_item(domain, rank, row, score) for rank, (row, score) in enumerate(found.ranked, start=1)],
        exact_prefix=min(found.exact_prefix, len(found.ranked)),
        num_beams_effective=found.num_beams,
        degraded=[DegradedBody(kind=each.kind, detail=each.detail) for each in degraded],
        domain=domain.name,
        bundle=domain.bundle_hash,
        catalog_revision=version.catalog_revision,
        request_id=trace.request_id,
        timings_ms=TimingsBody.model_validate(trace.stages_ms) if has_timings else None,
    )


def _item(domain: ServedDomain, rank: int, row: int, score: float) -> RankedItem:
    catalog = domain.catalog
    return RankedItem(
        rank=rank,
        item_id=catalog.item_ids[row],
        score=score,
        title=catalog.titles[row],
        image=catalog.images[row],
        attributes=catalog.attributes(row),
    )


def _are_eligible(eligibility: Eligibility, leaves: NDArray[np.int64]) -> NDArray[np.bool_]:
    if eligibility.included is not None:
        return _are_among(leaves, eligibility.included)
    is_member = eligibility.base.is_member
    is_leaf = (leaves >= 0) & (leaves < len(is_member))
    return is_leaf & is_member[np.where(is_leaf, leaves, 0)] & ~_are_among(leaves, eligibility.excluded)


def _are_among(leaves: NDArray[np.int64], ordered: NDArray[np.int32]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(leaves), dtype=np.bool_)
    places = np.searchsorted(ordered, leaves).clip(max=len(ordered) - 1)
    are_among: NDArray[np.bool_] = ordered[places] == leaves
    return are_among


def _check_length(field: str, item_ids: Sequence[str] | None, limit: int) -> None:
    if item_ids is not None and len(item_ids) > limit:
        raise InputError(f"{field} holds {len(item_ids)} items, the limit is {limit}; send fewer", field=field)
