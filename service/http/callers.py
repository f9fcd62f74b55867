"""Who sends a request, and what the caller may use."""

from __future__ import annotations

from fastapi import Request

from service.http.api_keys import ApiKey, RouteScope
from service.http.app_state import state_of
from service.http.identity import key_of
from service.http.problems import trace_of
from service.http.rate_limits import Charge


def note_key(request: Request, key: ApiKey) -> None:
    """The request's key, for its log line, its share of the engine and its quota."""
    request.state.api_key = key
    trace = trace_of(request)
    trace.client, trace.share = key.id, key.share
    if key.quota is not None:
        trace.charge = Charge.open(state_of(request.app), key, trace)


def require_route(request: Request, route: RouteScope) -> None:
    """Raises ForbiddenError if the request's key may not use such routes."""
    key = key_of(request)
    if key is not None:
        key.require_route(route)


def require_domain(request: Request, domain: str) -> None:
    """Raises ForbiddenError if the request's key may not use the domain."""
    key = key_of(request)
    if key is not None:
        key.require_domain(domain)
