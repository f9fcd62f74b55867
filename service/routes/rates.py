"""Rate limits as routes apply them: who a client is, and whether it may send one more request."""

from __future__ import annotations

from fastapi import Request

from service.rate_limits import RateLimits


def client_identity(request: Request) -> str:
    """The API key, where one was checked and left in the request's state, else the client's address."""
    key_id: str | None = getattr(request.state, "api_key_id", None)
    if key_id is not None:
        return f"key {key_id}"
    return f"address {request.client.host if request.client else 'unknown'}"


async def check_rate(request: Request) -> None:
    """Raises RateLimitedError."""
    limits: RateLimits | None = request.app.state.rate_limits
    if limits is not None:
        limits.check(client_identity(request))
