"""Bearer tokens for /admin, and what each may do."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, ValidationError

from service.errors import ApiKeysError, ForbiddenError, UnauthorizedError
from service.http.api_keys import NewKey
from service.http.credentials import Credential, CredentialsFile, Kind, digest_of, new_secret

TOKEN_PREFIX = "vip5_admin_"  # noqa: S105  # the beginning of tokens, not one
SCHEME = "bearer"

Right: TypeAlias = Literal["read", "catalog", "roles"]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""Look at what is served; change items and embeddings; change which versions are served, and drain."""


class AdminToken(Credential):
    """A line of the file of admin tokens."""

    rights: Annotated[tuple[Right, ...], Field(strict=False, min_length=1)] = RIGHTS

    def require(self, right: Right) -> None:
        """Raises ForbiddenError."""
        if right not in self.rights:
            raise ForbiddenError(
                f"the token {self.id!r} has the rights {', '.join(self.rights)}, and this needs {right}; use a token "
                "that has it"
            )


KIND = Kind(AdminToken, noun="admin tokens", command="vip5 keys new-admin --id NAME", event="admin_tokens")


def new_admin_token(token_id: str, rights: Sequence[str] = RIGHTS) -> NewKey:
    """A random token and its line in the file. Raises ApiKeysError if the id or a right is invalid."""
    token = new_secret(TOKEN_PREFIX)
    try:
        line = AdminToken.model_validate({"id": token_id, "sha256": digest_of(token), "rights": tuple(rights)})
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        raise ApiKeysError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return NewKey(token, line.model_dump_json())


class AdminTokens:
    """The token of the settings, which has all rights, and those of a file, which may change at any time."""

    def __init__(self, token: str | None, path: Path | None) -> None:
        """Raises ApiKeysError."""
        self._own = None if token is None else AdminToken(id="admin", sha256=digest_of(token))
        self._file = None if path is None else CredentialsFile(path, KIND)

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with the file."""
        return () if self._file is None else self._file.problems

    def check(self, authorization: str) -> AdminToken:
        """The token in the Authorization header. Raises UnauthorizedError."""
        scheme, _, given = authorization.partition(" ")
        token = given.strip() if scheme.lower() == SCHEME else ""
        found = None if self._file is None else self._file.find(token)
        if self._own is not None and hmac.compare_digest(self._own.sha256, digest_of(token)):
            found = self._own
        if found is None:
            raise UnauthorizedError("the admin token is missing or wrong; send it as Authorization: Bearer TOKEN")
        return found
