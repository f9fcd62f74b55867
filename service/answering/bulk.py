"""Answers bodies with many requests: all are admitted at once or none, and each gets its own answer or error.

The versions for all are leased in one step, so requests of one domain and role are answered by one version. After the
planning of each request there is a pause, so that others are served meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from model.errors import Vip5Error
from service.answering.answers import Recommendation
from service.answering.attribution import attribution_size
from service.answering.recommender import Opened, Recommender, cost_of
from service.batching.bulk import Request
from service.batching.entry import Admission, Place, RankingEntry
from service.batching.job import ExpectedLoad
from service.batching.shares import Client
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.problem_documents import WORKED_FOR, code_of
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.settings.options import RequestLimits

Body: TypeAlias = SequentialRequest | DirectRequest

PAUSE_S = 0.001
"""The shortest that the event loop's timers know.

The engine's thread gives up the GIL at many of its operators. While the event loop works without a pause, the thread
waits for it, SWITCH_INTERVAL_S (service/http/server.py) at each, and calls take several times as long."""


@dataclass(frozen=True)
class Outcome:
    """What became of one request of a body."""

    trace: RequestTrace
    result: Recommendation | Exception


@dataclass(frozen=True)
class _Question:
    """A request that can be admitted."""

    body: Body
    trace: RequestTrace
    opened: Opened
    load: ExpectedLoad
    num_tokens: int
    """What it counts against a quota."""


async def give_way() -> None:
    """Let other requests, and the engine's thread, do their work between two parts of a body's."""
    await asyncio.sleep(PAUSE_S)


class BulkRecommender:
    """Answers many requests of one body."""

    def __init__(self, recommender: Recommender, lane: RankingEntry, limits: RequestLimits, metrics: Metrics) -> None:
        self._recommender = recommender
        self._lane = lane
        self._limits = limits
        self._metrics = metrics

    async def recommend(self, bodies: Sequence[Body | Exception], trace: RequestTrace) -> list[Outcome]:
        """An outcome for each of the bodies, in order; what is an error already stays one.

        Raises what refuses all: LoadTooLargeError, QueueFullError, OverloadedError, RateLimitedError, DrainingError.
        """
        now = time.monotonic()
        traces = [
            RequestTrace(f"{trace.request_id}.{number}", trace.route, client=trace.client, share=trace.share)
            for number in range(len(bodies))
        ]
        try:
            leased = [
                body if isinstance(body, Exception) else self._open(body, own, now)
                for body, own in zip(bodies, traces, strict=True)
            ]
            # One after the other: a store of histories has a short time limit, which the work for others would use up.
            completed = [
                await self._completed(opened, body, own)
                for opened, body, own in zip(leased, bodies, traces, strict=True)
            ]
            found = list(map(self._question, leased, completed, traces))
            questions = [each for each in found if isinstance(each, _Question)]
            answers = iter(await self._answers(questions, trace))
            results = [next(answers) if isinstance(each, _Question) else each for each in found]
        finally:
            for own in traces:
                own.end()
        return [Outcome(own, result) for own, result in zip(traces, results, strict=True)]

    def _open(self, body: Body, trace: RequestTrace, now: float) -> Opened | Exception:
        try:
            return self._recommender.open(body, trace, now)
        except Vip5Error as error:
            return error

    async def _completed(
        self, opened: Opened | Exception, body: Body | Exception, trace: RequestTrace
    ) -> Body | Recommendation | Exception:
        """The body with its stored history; what is answered or an error already stays so."""
        if isinstance(opened, Exception):
            return opened
        assert not isinstance(body, Exception), "an error is never opened"
        try:
            found = await self._recommender.completed(opened, body, trace)
        except Vip5Error as error:
            return error
        if isinstance(found, Recommendation):
            await give_way()
        return found

    def _question(
        self, opened: Opened | Exception, body: Body | Recommendation | Exception, trace: RequestTrace
    ) -> _Question | Recommendation | Exception:
        """What is asked; what is answered or an error already stays so."""
        if isinstance(body, Recommendation | Exception):
            return body
        assert not isinstance(opened, Exception), "its body would be an error"
        domain = opened.lease.version.domain
        trace.domain = domain.name
        cost = cost_of(domain, body)
        try:
            cost.check(self._limits.max_tokens)
            num_tokens = ExpectedLoad.of(cost).size + attribution_size(body, cost, self._limits.max_tokens)
        except Vip5Error as error:
            return error
        return _Question(body, trace, opened, ExpectedLoad.of(cost), num_tokens)

    async def _answers(self, questions: Sequence[_Question], trace: RequestTrace) -> list[Recommendation | Exception]:
        if not questions:
            return []
        if trace.charge is not None:
            await trace.charge.take_for_many(sum(each.num_tokens for each in questions))
        requests = [Request(each.load, each.opened.deadline) for each in questions]
        with trace.stage("admission"):
            admission = await self._lane.admit(requests, Client(trace.client, trace.share))
        self._metrics.observe_bulk(len(questions))
        try:
            with trace.stage("answers"):
                return await self._all_answered(questions, admission, trace)
        finally:
            admission.give_up()

    async def _all_answered(
        self, questions: Sequence[_Question], admission: Admission, trace: RequestTrace
    ) -> list[Recommendation | Exception]:
        tasks = []
        async with asyncio.TaskGroup() as group:
            for number, question in enumerate(questions):
                tasks.append(group.create_task(self._answer(question, Place(admission, number), trace)))
                await give_way()
        return [task.result() for task in tasks]

    async def _answer(self, question: _Question, place: Place, trace: RequestTrace) -> Recommendation | Exception:
        try:
            return await self._recommender.answer(question.opened, question.body, question.trace, place)
        except Exception as error:  # noqa: BLE001  # it is the request's answer
            if trace.charge is not None and code_of(error) not in WORKED_FOR:
                trace.charge.give_back(question.num_tokens)
            return error
        finally:
            place.give_up()
            question.trace.begin_answer()
