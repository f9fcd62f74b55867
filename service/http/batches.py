"""Answers bodies with many requests for recommendations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from fastapi import Request
from fastapi.responses import Response

from service.answering.answers import Recommendation
from service.answering.bulk import Body, BulkRecommender, Outcome, give_way
from service.errors import ForbiddenError
from service.http.app_state import state_of
from service.http.auditing import audit_refusal
from service.http.callers import require_domain
from service.http.dependencies import ready_service_of
from service.http.problems import noted_problem, trace_of
from service.http.rate_limits import check_rate_of_others
from service.http.responses import while_connected
from service.observability.trace import RequestTrace

SLICE = 32
"""Answers that are written between two pauses."""


async def answer_batch(request: Request, bodies: Sequence[Body | Exception]) -> Response:
    """The answers to all bodies; errors among them stay errors. Raises what refuses all of them."""
    trace = trace_of(request)
    service, state = ready_service_of(request), state_of(request.app)
    trace.num_requests = len(bodies)
    await check_rate_of_others(request, len(bodies))
    allowed = _allowed(request, bodies)
    bulk = BulkRecommender(service.recommender, service.lanes.ranking, state.settings.request_limits, state.metrics)
    outcomes = await while_connected(request.receive, bulk.recommend(allowed, trace))
    _note(trace, outcomes)
    content = b",".join([part async for part in _contents(request, outcomes)])
    trace.num_failed = sum(each.trace.error_code is not None for each in outcomes)
    return Response(b'{"answers":[' + content + b"]}", media_type="application/json")


def _allowed(request: Request, bodies: Sequence[Body | Exception]) -> list[Body | Exception]:
    """The bodies, with an error in place of each whose domain the request's key may not use."""
    refused: dict[str, ForbiddenError] = {}
    for domain in sorted({body.domain for body in bodies if not isinstance(body, Exception)}):
        try:
            require_domain(request, domain)
        except ForbiddenError as error:
            audit_refusal(request, trace_of(request).client, error)
            refused[domain] = error
    return [body if isinstance(body, Exception) else refused.get(body.domain, body) for body in bodies]


def _note(trace: RequestTrace, outcomes: Sequence[Outcome]) -> None:
    domains = {each.trace.domain for each in outcomes}
    trace.domain = domains.pop() if len(domains) == 1 else ""
    trace.num_items = sum(each.trace.num_items or 0 for each in outcomes)
    trace.degraded = tuple(dict.fromkeys(kind for each in outcomes for kind in each.trace.degraded))


async def _contents(request: Request, outcomes: Sequence[Outcome]) -> AsyncIterator[bytes]:
    """The JSON of all answers, a slice at a time."""
    for start in range(0, len(outcomes), SLICE):
        if start:
            await give_way()
        for each in outcomes[start : start + SLICE]:
            yield _content(request, each)


def _content(request: Request, outcome: Outcome) -> bytes:
    """The JSON of one answer, which is counted."""
    state, trace = state_of(request.app), outcome.trace
    if isinstance(outcome.result, Recommendation):
        status, content = 200, outcome.result.json()
    else:
        problem = state.private_paths.hidden_in(noted_problem(outcome.result, trace, state.metrics))
        status, content = problem.status, problem.model_dump_json(exclude_none=True).encode()
    state.metrics.count_bulk_request(_path_of(request), trace.domain, status)
    return content


def _path_of(request: Request) -> str:
    """The path of the same request alone."""
    return str(getattr(request.scope.get("route"), "path", "")).removesuffix(":batch")
