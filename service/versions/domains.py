"""The table of domains: which version of each answers a request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from model.errors import UnknownDomainError
from model.planning.domain import ServedDomain
from service.errors import UnknownVersionError
from service.versions.domain_version import DomainVersion, Lease
from service.versions.state import Canary, Roles, VersionRef


@dataclass(frozen=True, eq=False)
class Serving:
    """The versions of one domain and their roles; replaced as a whole."""

    roles: Roles
    versions: Mapping[VersionRef, DomainVersion]

    @property
    def stable(self) -> DomainVersion | None:
        return None if self.roles.stable is None else self.versions[self.roles.stable]

    @property
    def shadow(self) -> DomainVersion | None:
        return None if self.roles.shadow is None else self.versions[self.roles.shadow]

    @property
    def with_traffic(self) -> list[DomainVersion]:
        """The versions that requests reach: stable, canary and shadow."""
        canary = self.roles.canary
        refs = {self.roles.stable, self.roles.shadow, None if canary is None else canary.ref}
        return [version for ref, version in self.versions.items() if ref in refs]


_NOTHING = Serving(Roles(), {})


class Domains:
    """Mutable, and used on the event loop only; the values are immutable."""

    def __init__(self) -> None:
        self._serving: dict[str, Serving] = {}

    def publish(self, name: str, serving: Serving) -> None:
        """Route new requests to these versions; a domain without versions is removed."""
        if serving.versions:
            self._serving[name] = serving
        else:
            self._serving.pop(name, None)

    def serving(self, name: str) -> Serving:
        """All versions of a domain; empty for an unknown name."""
        return self._serving.get(name, _NOTHING)

    def items(self) -> Iterator[tuple[str, Serving]]:
        """All domains by name, including those that are loaded and not served yet."""
        return iter(sorted(self._serving.items()))

    @property
    def stable(self) -> dict[str, DomainVersion]:
        """The stable versions, sorted by the domain's name."""
        return {name: serving.stable for name, serving in self.items() if serving.stable is not None}

    def version(self, name: str) -> DomainVersion:
        """The stable version of a domain. Raises UnknownDomainError."""
        stable = self.serving(name).stable
        if stable is None:
            served = ", ".join(self.stable) or "none"
            raise UnknownDomainError(f"the domain {name!r} is not served; served domains: {served}", field="domain")
        return stable

    def domain(self, name: str) -> ServedDomain:
        """Raises UnknownDomainError."""
        return self.version(name).domain

    def lease(
        self, name: str, key: str, *, is_ranking: bool, holder: str, role: Literal["stable", "canary"] | None = None
    ) -> Lease:
        """A lease on the canary or the stable version, chosen by `key` (user id, or request id without one) or `role`.

        `holder` is the request's id, for those who wait for it.

        Raises UnknownDomainError, and UnknownVersionError if there is no canary and the role asks for it.
        """
        stable = self.version(name)
        serving = self.serving(name)
        canary = serving.roles.canary
        if canary is None and role == "canary":
            raise UnknownVersionError(f"the domain {name!r} has no canary; ask for the role stable, or for none")
        if canary is not None and (role or _role_of(key, canary)) == "canary":
            return Lease(serving.versions[canary.ref], "canary", is_ranking=is_ranking, holder=holder)
        return Lease(stable, "stable", is_ranking=is_ranking, holder=holder)


def _role_of(key: str, canary: Canary) -> Literal["stable", "canary"]:
    return "canary" if hash_fraction(key, canary.salt) < canary.share else "stable"


def hash_fraction(key: str, salt: str) -> float:
    """A salted hash of the key, uniform in [0, 1)."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest) / 2**64
