"""Versions of a domain that are placed in the engine, and leases on them. Used on the event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from feature_cache.store import FeatureStore
from model.bundle.changes import CatalogChanges, Row
from model.bundle.domain_files import OpenedDomain
from model.planning.domain import ServedDomain
from service.observability.metrics.metrics import Role
from service.versions.state import VersionRef


class ReferenceCount:
    """The holders of references, with an awaitable zero."""

    def __init__(self) -> None:
        self._holders: dict[Lease, None] = {}
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def value(self) -> int:
        return len(self._holders)

    @property
    def num_requests(self) -> int:
        """Requests that hold references, here and in workers."""
        return sum(lease.num_requests for lease in self._holders)

    @property
    def holders(self) -> list[str]:
        """Their names, from the earliest to the latest."""
        return [holder for lease in self._holders for holder in lease.holders]

    def acquire(self, lease: Lease) -> None:
        self._holders[lease] = None

    def release(self, lease: Lease) -> None:
        del self._holders[lease]
        if not self._holders:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def wait_zero(self) -> None:
        if self._holders:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


@dataclass(frozen=True, eq=False)
class PlacedDomain:
    """A domain's weights and trie in a slot of the engine. Its versions differ in the catalog's columns only."""

    slot: int
    opened: OpenedDomain
    domain: ServedDomain
    """As it was when it was placed."""
    added: tuple[Row, ...]
    """Items in the trie that are not in the bundle."""
    features: FeatureStore
    references: ReferenceCount = field(default_factory=ReferenceCount)


@dataclass(frozen=True, eq=False)
class DomainVersion:
    """A domain at one revision of its catalog; immutable. Several versions may share a placed domain."""

    ref: VersionRef
    domain: ServedDomain
    catalog_revision: int
    changes: CatalogChanges
    """What differs from the bundle's catalog."""
    features: FeatureStore
    feature_rows: Mapping[str, str]
    """Embeddings put after the bundle was written, by item: base64 of float32."""
    placed: PlacedDomain
    num_left_out: int = 0
    """Rows of these that are not embeddings."""
    rankings: ReferenceCount = field(default_factory=ReferenceCount)
    """Rankings in progress, which a change of the catalog waits for."""


class Lease:
    """Keeps a version in the engine until the lease is released."""

    def __init__(self, version: DomainVersion, role: Role, *, is_ranking: bool = False, holder: str = "") -> None:
        """With `is_ranking`, changes of the catalog wait for this lease; `holder` names it to them."""
        self.version = version
        self.num_requests = 1
        """Requests that it stands for; a worker's lease stands for all of the worker's requests."""
        self.holders: Sequence[str] = (holder,)
        """Ids of these requests, as far as they are known."""
        self.role: Role = role
        self._references = [version.placed.references, *([version.rankings] if is_ranking else [])]
        for references in self._references:
            references.acquire(self)

    def release(self) -> None:
        """Idempotent."""
        while self._references:
            self._references.pop().release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
