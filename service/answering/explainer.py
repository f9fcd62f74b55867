"""Answers requests for explanations, as a whole or as a stream of tokens.

The HTTP route and the command line share this path.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from feature_cache.background import awaited
from model.engine.plans import TextPlan
from model.engine.protocol import GeneratedText
from model.planning.explanations import plan_explanation
from service.answering.image_features import fetch_features
from service.batching.entry import Entries, Waiting
from service.batching.job import size_of
from service.batching.shares import Client
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.base import degraded_bodies
from service.schemas.explanation import ExplanationAnswer, ExplanationRequest, TokenEvent
from service.settings.options import RequestLimits
from service.versions.domain_version import Lease
from service.versions.domains import Domains


class RunningExplanation:
    """An explanation that is being generated."""

    def __init__(
        self,
        lease: Lease,
        plan: TextPlan,
        job: Waiting[GeneratedText],
        tokens: asyncio.Queue[int | None],
        metrics: Metrics,
    ) -> None:
        self._lease = lease
        self._domain = lease.version.domain
        self._metrics = metrics
        self._plan = plan
        self._job = job
        self._tokens = tokens

    async def answer(self, trace: RequestTrace) -> ExplanationAnswer:
        """Wait for the whole text. A cancelled wait stops the generation. Raises DeadlineError and EngineError."""
        plan = self._plan
        try:
            generated = await self._job.result()
        finally:
            self._lease.release()  # not when the client has read the answer
        trace.note_engine(self._job.queue_s, self._job.timings)
        self._observe()
        text = self._domain.text_of(generated.token_ids)
        star_rating = None
        if self._domain.templates[plan.template].predicts_rating:
            star_rating, text = self._domain.rated_text(text)
        return ExplanationAnswer(
            text=text,
            star_rating=star_rating,
            template=plan.template,
            finish_reason=generated.finish_reason,
            degraded=degraded_bodies((*plan.degraded, *self._domain.degraded)),
            domain=self._domain.name,
            bundle=self._domain.bundle_hash,
            catalog_revision=self._lease.version.catalog_revision,
            request_id=trace.request_id,
        )

    async def events(self, trace: RequestTrace) -> AsyncIterator[TokenEvent | ExplanationAnswer]:
        """The text added by each token, then the whole answer; with several beams, only the answer."""
        answer = awaited(self.answer(trace))
        answer.add_done_callback(lambda _: self._tokens.put_nowait(None))
        try:
            token_ids: list[int] = []
            sent = ""
            while (token_id := await self._tokens.get()) is not None:
                token_ids.append(token_id)
                text = self._domain.text_of(token_ids)
                if text != sent and text.startswith(sent):
                    yield TokenEvent(text=text[len(sent) :])
                    sent = text
            yield await answer
        finally:
            answer.cancel()

    def _observe(self) -> None:
        duration_s = time.monotonic() - self._job.submitted_at
        version = self._lease.version.ref.version
        self._metrics.observe_version(self._domain.name, version, self._lease.role, duration_s)

    def cancel(self) -> None:
        """Stop generating at the next token."""
        self._job.abandon()


class Explainer:
    """Answers requests for explanations."""

    def __init__(self, domains: Domains, lanes: Entries, metrics: Metrics, limits: RequestLimits) -> None:
        self._domains = domains
        self._lanes = lanes
        self._metrics = metrics
        self._limits = limits

    async def explain(self, request: ExplanationRequest, trace: RequestTrace) -> ExplanationAnswer:
        """Raises InputError kinds, QueueFullError, DeadlineError and EngineError."""
        started_at = time.perf_counter()
        answer = await (await self.start(request, trace)).answer(trace)
        trace.note_stage("total", time.perf_counter() - started_at)
        return answer

    async def start(self, request: ExplanationRequest, trace: RequestTrace) -> RunningExplanation:
        """Queue the request. Raises InputError kinds and QueueFullError."""
        deadline = time.monotonic() + self._limits.default_deadline_s
        key = request.user_id or trace.request_id
        lease = trace.hold(self._domains.lease(request.domain, key, is_ranking=False, holder=trace.request_id))
        domain = lease.version.domain
        trace.domain = domain.name
        client = Client(trace.client, trace.share)
        self._lanes.text.check(deadline, client=client)  # reject before planning
        with trace.stage("plan"):
            plan = plan_explanation(domain, request)
        if trace.charge is not None:
            await trace.charge.take(size_of(plan))
        with trace.stage("features"):
            plan = await fetch_features(lease.version, plan)
        trace.note_degraded((*plan.degraded, *domain.degraded))
        self._metrics.count_degraded(trace.degraded)
        tokens: asyncio.Queue[int | None] = asyncio.Queue()
        on_token = tokens.put_nowait if request.stream else None
        job = self._lanes.text.submit(plan, deadline=deadline, client=client, on_token=on_token)
        await job.admitted()
        return RunningExplanation(lease, plan, job, tokens, self._metrics)
