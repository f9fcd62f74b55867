"""The bearer token for /admin."""

from __future__ import annotations

import hmac

from service.errors import UnauthorizedError

SCHEME = "bearer"


class AdminToken:
    """Compares in constant time."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, authorization: str) -> None:
        """Raises UnauthorizedError unless the Authorization header contains the token."""
        scheme, _, given = authorization.partition(" ")
        is_same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if scheme.lower() != SCHEME or not is_same:
            raise UnauthorizedError("the admin token is missing or wrong; send it as Authorization: Bearer TOKEN")
