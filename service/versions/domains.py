"""The table of what is served: each domain's name, and the version that a request for it gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model.errors import UnknownDomainError
from model.planning.domain import ServedDomain
from service.versions.domain_version import DomainVersion, Lease
from service.versions.state import Roles, VersionRef


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


class Domains:
    """Mutable, and the event loop's alone; what it gives out is immutable."""

    def __init__(self) -> None:
        self._serving: dict[str, Serving] = {}

    def show(self, name: str, serving: Serving) -> None:
        """Let requests from now on see this; one without versions is removed."""
        if serving.versions:
            self._serving[name] = serving
        else:
            self._serving.pop(name, None)

    def serving(self, name: str) -> Serving:
        """All versions of a domain; none for a name that there is not."""
        return self._serving.get(name, Serving(Roles(), {}))

    def every(self) -> Iterator[tuple[str, Serving]]:
        """All names, those included that are loaded and not served yet."""
        return iter(sorted(self._serving.items()))

    @property
    def stable(self) -> dict[str, DomainVersion]:
        """What most requests get, by name, in the order of the names."""
        return {name: serving.stable for name, serving in self.every() if serving.stable is not None}

    def version(self, name: str) -> DomainVersion:
        """The stable version of a domain. Raises UnknownDomainError naming what is served."""
        stable = self.serving(name).stable
        if stable is None:
            served = ", ".join(self.stable) or "none"
            raise UnknownDomainError(f"the domain {name!r} is not served; served are: {served}", field="domain")
        return stable

    def domain(self, name: str) -> ServedDomain:
        """Raises UnknownDomainError naming what is served."""
        return self.version(name).domain

    def lease(self, name: str, key: str, *, is_ranking: bool) -> Lease:
        """The version that answers for `key` (a user, or a request of nobody's). Raises UnknownDomainError."""
        stable = self.version(name)
        serving = self.serving(name)
        canary = serving.roles.canary
        if canary is not None and place_of(key, canary.salt) < canary.share:
            return Lease(serving.versions[canary.ref], "canary", is_ranking=is_ranking)
        return Lease(stable, "stable", is_ranking=is_ranking)


def place_of(key: str, salt: str) -> float:
    """Where a key lies between 0 and 1: the same for the same salt, and even over keys."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest) / 2**64
