"""Refusals of requests that never reach the app: problem documents, logged and counted like other answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastapi.responses import Response

from service.errors import ServiceError
from service.http.problems import problem_response
from service.http.request_context import REQUEST_ID, request_id_of
from service.observability.json_logging import log_request
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.problem_documents import problem_of, status_of


def refusal(
    error: ServiceError,
    headers: Iterable[tuple[bytes, bytes]],
    answer_headers: Mapping[str, str],
    metrics: Metrics,
    duration_s: float,
) -> Response:
    """The answer, which closes the connection. `headers` are those of the request that were read."""
    given = next((value for name, value in headers if name == REQUEST_ID.lower().encode()), b"")
    trace = RequestTrace(request_id_of(given.decode("latin-1")), error_code=error.code)
    problem = problem_of(error, trace.request_id)
    metrics.observe_request(trace.route, trace.domain, problem.status, duration_s)
    log_request(trace, problem.status, duration_s)
    return problem_response(problem, {REQUEST_ID: trace.request_id, "Connection": "close"} | dict(answer_headers))


def as_bytes(response: Response, error: ServiceError) -> bytes:
    """A response as it is sent."""
    lines = [f"HTTP/1.1 {response.status_code} {status_of(error).title}".encode()]
    lines += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
