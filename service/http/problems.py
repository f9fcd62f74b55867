"""Translates every error of the app to a problem document."""

from __future__ import annotations

import logging
import sys

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from model.errors import Vip5Error
from service.errors import (
    MalformedBodyError,
    MethodError,
    RangeError,
    ServiceError,
    UnauthorizedError,
    UnknownRouteError,
)
from service.http.private_paths import PrivatePaths
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.problem_documents import REJECTED, problem_of, validation_problem
from service.schemas.problem import Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


def trace_of(request: Request) -> RequestTrace:
    trace = request.state.trace
    assert isinstance(trace, RequestTrace)
    return trace


def install_problem_handlers(app: FastAPI, metrics: Metrics, private_paths: PrivatePaths) -> None:
    async def respond(request: Request, error: Exception) -> Response:
        # A coroutine: plain functions run in a thread, which takes longer than all the rest of a refusal.
        return answer_problem(request, error, metrics, private_paths)

    for kind in (Vip5Error, ValidationError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, respond)


def answer_problem(request: Request, error: Exception, metrics: Metrics, private_paths: PrivatePaths) -> Response:
    """The answer to a request that ends with this error, which is noted, counted and, if it is ours, logged."""
    trace = trace_of(request)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    error = _translate(request, error)
    problem = noted_problem(error, trace, metrics)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, RangeError):
        headers["Content-Range"] = f"bytes */{error.num_bytes}"
    return problem_response(private_paths.hidden_in(problem), headers)


def noted_problem(error: Exception, trace: RequestTrace, metrics: Metrics) -> Problem:
    """The problem document of a request that ends with this error, noted, counted and, if ours, logged."""
    problem = _problem_of(error, trace.request_id)
    trace.error_code = problem.code
    if problem.status in REJECTED:
        metrics.count_rejected(problem.code)
    if problem.status == 500:
        logger.error("request_failed", exc_info=error, extra={"request_id": trace.request_id})
    return problem


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    content = problem.model_dump_json(exclude_none=True)
    return Response(content, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def problem_for(request: Request, error: Exception) -> Problem:
    """The problem document that answers a request which ends with this error."""
    return _problem_of(_translate(request, error), trace_of(request).request_id)


def _problem_of(error: Exception, request_id: str) -> Problem:
    if isinstance(error, RequestValidationError):
        return validation_problem(error.errors(), request_id)
    return problem_of(error, request_id)


def _malformed(error: RequestValidationError) -> MalformedBodyError | None:
    for fault in error.errors():
        if fault["type"] == "json_invalid":
            return MalformedBodyError(f"the body is not JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}")
    return None


def _translate(request: Request, error: Exception) -> Exception:
    """The framework's errors as the service's own."""
    if isinstance(error, RequestValidationError):
        return _malformed(error) or error
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 404:
        return UnknownRouteError(f"the path {request.url.path!r} does not exist; GET /openapi.json lists all paths")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return MethodError(f"{request.url.path} does not support {request.method}; use {allowed}")
    if error.status_code == 400:
        return _unreadable(error.__cause__)
    return error


def _unreadable(cause: BaseException | None) -> MalformedBodyError:
    """Why Python's reader of JSON failed, other than at a character."""
    problem = "the body could not be read as JSON"
    if isinstance(cause, RecursionError):
        return MalformedBodyError(f"{problem}: it is nested too deeply; send one JSON object")
    if isinstance(cause, ValueError) and not isinstance(cause, UnicodeDecodeError):
        limit = sys.get_int_max_str_digits()
        return MalformedBodyError(f"{problem}: an integer has more than {limit} digits; send a smaller number")
    return MalformedBodyError(f"{problem}; send one JSON object in UTF-8")
