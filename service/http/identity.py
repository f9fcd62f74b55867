"""Who a request is from, for limits per client."""

from __future__ import annotations

from ipaddress import IPv6Address

from fastapi import Request

from service.http.api_keys import ApiKey

HOST_BITS = 64
"""Of an IPv6 address, those that a network's machines choose themselves."""


def key_of(request: Request) -> ApiKey | None:
    """The request's key; None if API keys are not configured."""
    key: ApiKey | None = getattr(request.state, "api_key", None)
    return key


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
