"""Who sends a request, and what the caller may use."""

from __future__ import annotations

from ipaddress import IPv6Address

from fastapi import Request

from service.http.api_keys import ApiKey, RouteScope
from service.http.app_state import state_of
from service.http.problems import trace_of

HOST_BITS = 64
"""Of an IPv6 address, those that a network's machines choose themselves."""


def note_key(request: Request, key: ApiKey) -> None:
    """The request's key, for its log line, its share of the engine and its quota."""
    request.state.api_key = key
    trace = trace_of(request)
    trace.client, trace.share = key.id, key.share
    if key.quota is not None:
        trace.charge = state_of(request.app).quotas.open_charge(key, trace).take


def key_of(request: Request) -> ApiKey | None:
    """The request's key; None if API keys are not configured."""
    key: ApiKey | None = getattr(request.state, "api_key", None)
    return key


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


def client_identity(request: Request) -> str:
    """The API key's id if one was checked, else the client's address, which is the proxy's unless that is trusted.

    An IPv6 client stands for its /64 network, in which a single machine can take any address.
    """
    key = key_of(request)
    if key is not None:
        return f"key {key.id}"
    return f"address {_network_of(request.client.host) if request.client else 'unknown'}"


def _network_of(host: str) -> str:
    address, _, zone = host.partition("%")
    if ":" not in address:
        return host
    try:
        network = IPv6Address(int(IPv6Address(address)) >> HOST_BITS << HOST_BITS)
    except ValueError:
        return host
    return f"{network}/{128 - HOST_BITS}" + (f"%{zone}" if zone else "")
