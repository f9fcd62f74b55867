"""The token that opens /admin."""

from __future__ import annotations

import hmac

from service.errors import UnauthorizedError

SCHEME = "bearer"


class AdminToken:
    """Compares in constant time, and never tells what was expected."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, authorization: str) -> None:
        """Raises UnauthorizedError unless an Authorization header holds the token."""
        scheme, _, given = authorization.partition(" ")
        is_same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if scheme.lower() != SCHEME or not is_same:
            raise UnauthorizedError(
                "this needs the admin token, which is missing or wrong; send it as Authorization: Bearer TOKEN"
            )
