"""Dependencies of route functions: the service and the request's trace."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from service.answering.parts import Service
from service.http.app_state import state_of
from service.http.problems import trace_of
from service.observability.trace import RequestTrace


async def _trace_of(request: Request) -> RequestTrace:
    # A coroutine, because FastAPI runs plain functions in a thread, which costs a millisecond or more.
    return trace_of(request)


Trace = Annotated[RequestTrace, Depends(_trace_of)]

DomainPath = Annotated[str, Path(description="The domain; GET /domains lists them.", examples=["toys"])]


def service_of(request: Request) -> Service:
    return state_of(request.app).service


def ready_service_of(request: Request) -> Service:
    """Raises NotReadyError and DrainingError."""
    state = state_of(request.app)
    state.readiness.require()
    return state.service
