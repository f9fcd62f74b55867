"""Problem documents of requests that do not reach the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Message

from service.errors import ServiceError
from service.http.problems import problem_response
from service.http.request_context import REQUEST_ID, request_id_of
from service.observability.metrics import Metrics
from service.problem_documents import REJECTED, problem_of


def messages_of_problem(
    error: Exception, scope: Mapping[str, Any], metrics: Metrics | None = None
) -> Sequence[Message]:
    """The whole answer to a request that ends with this error, which is counted in `metrics`."""
    given = dict(scope["headers"]).get(REQUEST_ID.lower().encode())
    request_id = request_id_of(None if given is None else given.decode("latin-1"))
    headers = {REQUEST_ID: request_id}
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    problem = problem_of(error, request_id)
    if metrics is not None and problem.status in REJECTED:
        metrics.count_rejected(problem.code)
    response = problem_response(problem, headers)
    return (
        {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers},
        {"type": "http.response.body", "body": response.body},
    )
