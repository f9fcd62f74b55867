"""Repeats answered requests on shadow versions in the background, to compare the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from feature_cache.background import Background
from service.answering.answers import Recommendation
from service.batching.entry import Entries
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.versions.domain_version import DomainVersion, Lease
from service.versions.domains import Domains

MAX_IN_FLIGHT = 4

AnswerFrom = Callable[[DomainVersion, SequentialRequest | DirectRequest, RequestTrace], Awaitable[Recommendation]]


class Shadows:
    """Repeats requests of domains that have a shadow, while no other request waits."""

    def __init__(
        self, domains: Domains, lanes: Entries, metrics: Metrics, background: Background, answer_from: AnswerFrom
    ) -> None:
        self._domains = domains
        self._lanes = lanes
        self._metrics = metrics
        self._background = background
        self._answer_from = answer_from
        self._running: set[asyncio.Task[None]] = set()

    def repeat(self, request: SequentialRequest | DirectRequest, answer: Recommendation) -> None:
        """Start to repeat a request on the shadow, unless that would delay other requests."""
        shadow = self._domains.serving(request.domain).shadow
        if shadow is None or len(self._running) >= MAX_IN_FLIGHT or self._lanes.ranking.num_waiting:
            return
        about = {"domain": request.domain, "version": shadow.ref.version}
        task = self._background.once("shadow", lambda: self._compare(shadow, request, answer), **about)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _compare(
        self, shadow: DomainVersion, request: SequentialRequest | DirectRequest, answer: Recommendation
    ) -> None:
        started_at = time.perf_counter()
        with Lease(shadow, "shadow"):
            trace = RequestTrace(request_id=f"{answer.request_id}-shadow")
            other = await self._answer_from(shadow, request, trace)
        duration_s = time.perf_counter() - started_at
        self._metrics.observe_version(request.domain, shadow.ref.version, "shadow", duration_s)
        if answer.items:
            stable = {item.item_id for item in answer.items}
            shared = stable & {item.item_id for item in other.items}
            self._metrics.observe_shadow_overlap(request.domain, len(shared) / len(stable))
