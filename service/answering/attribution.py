"""Adds to a ranking's answer which items of its prompt, and which of their pictures, each recommendation is due to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from model.degradation import Degradation, DegradationKind
from model.errors import EngineError
from model.planning.attribution import (
    Attribution,
    Effect,
    attribute_direct,
    attribute_sequential,
    attribution_tokens,
)
from model.planning.costs import Cost
from model.planning.domain import ServedDomain
from service.answering.answers import Cause, Degraded, Recommendation
from service.answering.image_features import fetch_features, with_masked
from service.batching.entry import Submissions
from service.batching.shares import Client
from service.errors import DeadlineError, DrainingError, OverloadedError, QueueFullError
from service.observability.trace import RequestTrace
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.versions.domain_version import DomainVersion

RESERVE = 0.03
"""Share of a request's time that is kept for sending the answer without reasons."""

_TOLERATED = (DeadlineError, OverloadedError, QueueFullError, DrainingError, EngineError)
"""Errors that cost an answer its reasons only."""


class Work(NamedTuple):
    """Whose work it is, and until when it is of use."""

    trace: RequestTrace
    deadline: float


async def charge_attribution(
    request: SequentialRequest | DirectRequest, cost: Cost, max_tokens: int, trace: RequestTrace
) -> None:
    """Count the attribution against the client's quota. Raises InputError if it is too large, and RateLimitedError."""
    num_tokens = attribution_size(request, cost, max_tokens)
    if trace.charge is not None:
        await trace.charge.take(num_tokens)


def attribution_size(request: SequentialRequest | DirectRequest, cost: Cost, max_tokens: int) -> int:
    """Estimated tokens of the attribution that a request asks for, if any. Raises InputError if it is too large."""
    if request.attribution is None:
        return 0
    return attribution_tokens(cost, _num_items(request, cost), request.k, max_tokens)


async def with_reasons(
    answer: Recommendation,
    version: DomainVersion,
    request: SequentialRequest | DirectRequest,
    lane: Submissions,
    trace: RequestTrace,
    deadline: float,
) -> Recommendation:
    """The answer with the reasons that the request asks for; without them, and degraded, if time does not suffice."""
    if request.attribution is None or not answer.items:
        return answer
    started_at = time.perf_counter()
    patience = deadline - RESERVE * max(0.0, deadline - time.monotonic())
    try:
        with trace.stage("attribution"):
            effects = await _effects(answer, version, request, lane, Work(trace, patience))
    except _TOLERATED as error:
        lack = Degradation(DegradationKind.ATTRIBUTION_MISSING, f"the reasons are missing: {error}")
        trace.degraded = (*trace.degraded, lack.kind)
        return replace(answer, degraded=[*answer.degraded, Degraded(lack.kind.value, lack.detail)])
    ids, most = version.domain.catalog.item_ids, request.attribution
    items = [
        replace(item, because=[_cause(effect, ids) for effect in own[:most]])
        for item, own in zip(answer.items, effects, strict=True)
    ]
    timings = None if answer.timings_ms is None else dict(answer.timings_ms)
    if timings is not None:
        duration_ms = round((time.perf_counter() - started_at) * 1000, 3)
        total_ms = timings.pop("total") + duration_ms
        timings |= {"attribution": duration_ms, "total": total_ms}
    return replace(answer, items=items, timings_ms=timings)


async def _effects(
    answer: Recommendation,
    version: DomainVersion,
    request: SequentialRequest | DirectRequest,
    lane: Submissions,
    work: Work,
) -> list[list[Effect]]:
    domain = version.domain
    catalog = domain.catalog
    ranked = [row for item in answer.items if (row := catalog.row_of(item.item_id)) is not None]
    attribution = await asyncio.to_thread(_attribution, domain, request, ranked)
    plan = attribution.masked(await fetch_features(version, attribution.plan), domain)
    plan = with_masked(plan, domain, request.mask_images)
    client = Client(work.trace.client, work.trace.share)
    log_probs = await lane.submit(plan, deadline=work.deadline, client=client).result()
    return attribution.effects(log_probs)


def _attribution(
    domain: ServedDomain, request: SequentialRequest | DirectRequest, ranked: Sequence[int]
) -> Attribution:
    if isinstance(request, SequentialRequest):
        return attribute_sequential(domain, request, ranked)
    return attribute_direct(domain, request, ranked)


def _num_items(request: SequentialRequest | DirectRequest, cost: Cost) -> int:
    """Items of a prompt, each of which may be left out."""
    if isinstance(request, SequentialRequest):
        return len(set(request.history))
    return 1 if cost.is_pointwise else len(set(request.candidates or ()))


def _cause(effect: Effect, item_ids: Sequence[str]) -> Cause:
    return Cause(item_ids[effect.part.row], effect.part.kind, effect.nats)
