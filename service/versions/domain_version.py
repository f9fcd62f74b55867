"""Versions of a domain that lie in the engine, and who holds on to them. Belongs to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from feature_cache.store import FeatureStore
from model.bundle.bundle import OpenedDomain
from model.planning.domain import ServedDomain
from service.observability.metrics.metrics import Role
from service.versions.state import VersionRef


class Holders:
    """Counts those who hold on to something, and wakes whoever waits for the last of them."""

    def __init__(self) -> None:
        self.num = 0
        self._waiting: list[asyncio.Future[None]] = []

    def enter(self) -> None:
        self.num += 1

    def leave(self) -> None:
        self.num -= 1
        if self.num == 0:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)
            self._waiting.clear()

    async def gone(self) -> None:
        """Wait until nobody holds on."""
        if self.num:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting


@dataclass(frozen=True, eq=False)
class Tenancy:
    """A slot of the engine with what was placed there: weights, and a trie of the items that there were then."""

    slot: int
    opened: OpenedDomain
    placed: ServedDomain
    num_added: int  # items beyond the bundle's own that the trie was built with
    features: FeatureStore
    holders: Holders = field(default_factory=Holders)


@dataclass(frozen=True, eq=False)
class DomainVersion:
    """A domain as it is served at one revision of its catalog; immutable. Several may share a tenancy."""

    ref: VersionRef
    domain: ServedDomain
    catalog_revision: int
    features: FeatureStore
    feature_rows: Mapping[str, str]  # put beside those of the bundle
    tenancy: Tenancy
    rankings: Holders = field(default_factory=Holders)


class Lease:
    """Holds on to a version, so that what it needs stays in place until the lease is released."""

    def __init__(self, version: DomainVersion, role: Role, *, is_ranking: bool = False) -> None:
        """A lease for a ranking is waited for by those who change the catalog."""
        self.version = version
        self.role: Role = role
        self._holders = [version.tenancy.holders, *([version.rankings] if is_ranking else [])]
        for holders in self._holders:
            holders.enter()

    def release(self) -> None:
        """May be called again, to no effect."""
        while self._holders:
            self._holders.pop().leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
