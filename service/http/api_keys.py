"""API keys, and what each may do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

from limits import parse_many
from pydantic import Field, ValidationError, field_validator

from service.errors import ApiKeysError, ForbiddenError, UnauthorizedError
from service.http.credentials import Credential, CredentialsFile, Kind, digest_of, new_secret

KEY_PREFIX = "vip5_"
SCHEME = "bearer"

RouteScope: TypeAlias = Literal["recommend", "explain", "browse", "users", "events"]
DEFAULT_ROUTES: tuple[RouteScope, ...] = ("recommend", "explain", "browse")
"""Names and histories of users are personal data: a key must say that it may read them (`users`), or add to them
(`events`)."""


class ApiKey(Credential):
    """A line of the file of API keys."""

    domains: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    """Domains that the key may use; None for all."""
    routes: Annotated[tuple[RouteScope, ...], Field(strict=False)] = DEFAULT_ROUTES
    share: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Weight of the key's share of the engine while several keys wait."""
    quota: str | None = None
    """Most tokens of prompts and texts, such as `1000000/hour`; None for no limit."""

    @field_validator("quota")
    @classmethod
    def _check_quota(cls, quota: str | None) -> str | None:
        if quota is not None:
            try:
                parse_many(quota)
            except ValueError as error:
                raise ValueError("write a number of tokens per unit of time, such as 1000000/hour") from error
        return quota

    def require_route(self, route: RouteScope) -> None:
        """Raises ForbiddenError."""
        if route not in self.routes:
            raise ForbiddenError(
                f"the key {self.id!r} may use the routes {', '.join(self.routes) or '(none)'}, and this needs {route}; "
                "use a key that has it"
            )

    def allows_domain(self, domain: str) -> bool:
        return self.domains is None or domain in self.domains

    def require_domain(self, domain: str) -> None:
        """Raises ForbiddenError."""
        if not self.allows_domain(domain):
            raise ForbiddenError(
                f"the key {self.id!r} may use the domains {', '.join(self.domains or ()) or '(none)'}, and this needs "
                f"{domain!r}; use a key that has it"
            )


KIND = Kind(ApiKey, noun="API keys", command="vip5 keys new --id NAME", event="api_keys")


class NewKey(NamedTuple):
    """A new key, to be shown once, and its line in the file."""

    key: str
    line: str


def new_key(key_id: str, **options: object) -> NewKey:
    """A random key for a client; `options` are further fields of its line. Raises ApiKeysError if one is invalid."""
    key = new_secret(KEY_PREFIX)
    given = {name: value for name, value in options.items() if value is not None}
    try:
        line = ApiKey.model_validate({"id": key_id, "sha256": digest_of(key)} | given)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        if fault["loc"] != ("id",):
            raise ApiKeysError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
        raise ApiKeysError(
            f"{key_id!r} is not a valid key id; use 1 to 64 letters, digits, dots, hyphens and underscores"
        ) from error
    return NewKey(key, line.model_dump_json(exclude_unset=True))


class ApiKeys:
    """The keys of a file, which may change at any time."""

    def __init__(self, path: Path) -> None:
        """Raises ApiKeysError."""
        self._file = CredentialsFile(path, KIND)

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with the file."""
        return self._file.problems

    def check(self, authorization: str | None, api_key: str | None) -> ApiKey:
        """The key in the Authorization or X-API-Key header. Raises UnauthorizedError."""
        found = self._file.find(_presented_key(authorization, api_key))
        if found is None:
            raise UnauthorizedError(
                "the API key is missing or invalid; send it as Authorization: Bearer KEY or X-API-Key: KEY"
            )
        return found


def _presented_key(authorization: str | None, api_key: str | None) -> str:
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() == SCHEME:
        return credentials.strip()
    return (api_key or "").strip()
