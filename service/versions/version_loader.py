"""Loads versions of domains into the engine while others are served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from model.bundle.bundle import Opening, open_domain
from model.bundle.changes import CatalogChanges
from model.bundle.domain_files import Foundation, OpenedDomain
from model.engine.protocol import Placement
from model.errors import UnknownDomainError
from model.planning.domain import ServedDomain
from model.planning.runtime import Runtime
from service.errors import UnknownBundleError
from service.versions.building import build_domain, space_of, version_at
from service.versions.bundle_source import BundleSource
from service.versions.domain_version import DomainVersion, PlacedDomain
from service.versions.features import Features
from service.versions.slots import Slots
from service.versions.state import OWN_BUNDLE, DomainState, VersionRef

WarmUp = Callable[[DomainVersion], Awaitable[None]]
"""Answers one request with a version. Raises Vip5Error kinds."""


@dataclass(frozen=True)
class Sources:
    """Bundles that versions are loaded from: the service's own, and those in the configured folder or store."""

    runtime: Runtime
    bundles: BundleSource
    opening: Opening = field(default_factory=Opening)

    @property
    def foundation(self) -> Foundation:
        return self.runtime.foundation

    def own(self, domain: str) -> VersionRef:
        return VersionRef(OWN_BUNDLE, self.runtime.bundle_hash, domain)

    def open(self, bundle: str, domain: str, bundle_hash: str | None = None) -> tuple[VersionRef, OpenedDomain]:
        """Verify and read a domain; `bundle_hash` pins the bundle's content.

        Raises BundleError kinds, UnknownBundleError and UnknownDomainError.
        """
        if bundle == OWN_BUNDLE:
            if domain not in self.runtime.files:
                raise UnknownDomainError(f"the service's own bundle has no domain {domain!r}")
            return self.own(domain), OpenedDomain(self.runtime.files[domain], self.runtime.bundle_hash)
        (bundle, root), opening = self.bundles.find(bundle), self.opening
        opened = open_domain(root, domain, self.foundation, opening.trusted, opening.indexes)
        if bundle_hash not in (None, opened.bundle_hash):
            raise UnknownBundleError(
                f"the bundle {bundle!r} now has the hash {opened.bundle_hash}, not {bundle_hash}; restore its old files"
            )
        return VersionRef(bundle, opened.bundle_hash, domain), opened


class VersionLoader:
    """Loads versions and discards them; knows nothing of roles."""

    def __init__(self, sources: Sources, slots: Slots, features: Features, warm_up: WarmUp) -> None:
        self.sources = sources
        self.slots = slots
        self._features = features
        self._warm_up = warm_up

    async def adopt(self, domain: ServedDomain) -> DomainVersion:
        """The version of a domain that was in the engine at the start."""
        files = self.sources.runtime.files[domain.name]
        store = await self._features.store_of(domain, files.features)
        opened = OpenedDomain(files, domain.bundle_hash)
        placed = PlacedDomain(domain.slot, opened, domain, added=(), features=store)
        return DomainVersion(self.sources.own(domain.name), domain, 0, CatalogChanges(), store, {}, placed)

    async def load(self, ref: VersionRef, opened: OpenedDomain, name: str, state: DomainState) -> DomainVersion:
        """Place a version in a free slot and warm it up. Raises Vip5Error kinds, after freeing what it took."""
        slot = self.slots.allocate()
        try:
            version = await self._place(slot, ref, opened, name, state)
        except BaseException:
            await self.slots.free(slot)
            raise
        try:
            await self._warm_up(version)
        except BaseException:
            await self.discard(version)
            raise
        return version

    async def revise(self, version: DomainVersion, state: DomainState, name: str) -> DomainVersion:
        """The version at the state's catalog; added items need a new trie, which takes a new slot."""
        rows = state.features.get(space_of(version.domain.spec), {})
        # Equal revisions of two histories differ in content.
        is_same = version.changes == state.changes and version.feature_rows == rows
        is_same = is_same and version.domain.rules == state.boosts
        if version.catalog_revision == state.catalog_revision and is_same:
            return version
        if version.placed.added != state.changes.added:
            return await self.load(version.ref, version.placed.opened, name, state)
        return await asyncio.to_thread(_version_at, version.ref, version.placed, state, version)

    async def discard(self, version: DomainVersion) -> None:
        """Close the version's feature store, and free its slot when its last lease is released."""
        self._features.drop(version.domain)
        self.slots.free_when_unused(version.placed)

    async def _place(
        self, slot: int, ref: VersionRef, opened: OpenedDomain, name: str, state: DomainState
    ) -> DomainVersion:
        domain = await asyncio.to_thread(self._prepare, slot, opened, name, state)
        files = opened.files
        await self.slots.place(slot, Placement(files.spec.layout, files.adapter, domain.trie))
        store = await self._features.store_of(domain, files.features)
        try:
            placed = PlacedDomain(slot, opened, domain, added=state.changes.added, features=store)
            return await asyncio.to_thread(_version_at, ref, placed, state)
        except BaseException:
            self._features.drop(domain)
            raise

    def _prepare(self, slot: int, opened: OpenedDomain, name: str, state: DomainState) -> ServedDomain:
        return build_domain(slot, opened, name, state, self.sources.foundation.tokenizer)


def _version_at(
    ref: VersionRef, placed: PlacedDomain, state: DomainState, before: DomainVersion | None = None
) -> DomainVersion:
    """A version whose boosts are compiled: the first search needs them."""
    version = version_at(ref, placed, state, before)
    version.domain.boosts.warm_up(version.domain.eligible({}))
    return version
