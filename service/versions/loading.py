"""Brings versions of domains into the engine, beside those that answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_cache.patched import PatchedStore
from feature_cache.store import FeatureStore
from model.bundle.bundle import Foundation, OpenedDomain, open_domain
from model.bundle.changes import with_added, with_values
from model.bundle.layout import DomainSpec
from model.bundle.tensors import check_finite
from model.engine.protocol import Placement
from model.errors import UnknownDomainError
from model.planning.domain import ServedDomain
from model.planning.runtime import Runtime
from service.errors import UnknownBundleError
from service.versions.bundles import find_bundle
from service.versions.domain_version import DomainVersion, Tenancy
from service.versions.features import Features
from service.versions.slots import Slots
from service.versions.state import OWN_BUNDLE, DomainState, VersionRef

WarmUp = Callable[[DomainVersion], Awaitable[None]]
"""Lets a version answer a request. Raises Vip5Error kinds if it cannot."""


@dataclass(frozen=True)
class Sources:
    """Where versions come from: the bundle that the service was started with, and the folder of others."""

    runtime: Runtime
    bundles_root: Path | None

    @property
    def foundation(self) -> Foundation:
        return self.runtime.foundation

    def own(self, domain: str) -> VersionRef:
        return VersionRef(OWN_BUNDLE, self.runtime.bundle_hash, domain)

    def open(self, bundle: str, domain: str, bundle_hash: str | None = None) -> tuple[VersionRef, OpenedDomain]:
        """Verify and read a domain; with a hash, of that very bundle only. Raises BundleError kinds and more."""
        if bundle == OWN_BUNDLE:
            if domain not in self.runtime.files:
                raise UnknownDomainError(f"the service's own bundle has no domain {domain!r}")
            return self.own(domain), OpenedDomain(self.runtime.files[domain], self.runtime.bundle_hash)
        opened = open_domain(find_bundle(self.bundles_root, bundle), domain, self.foundation)
        if bundle_hash not in (None, opened.bundle_hash):
            raise UnknownBundleError(
                f"the bundle {bundle!r} has the hash {opened.bundle_hash} now, not {bundle_hash}; put the old one back"
            )
        return VersionRef(bundle, opened.bundle_hash, domain), opened


class VersionLoader:
    """Makes versions; giving them roles is another's work."""

    def __init__(self, sources: Sources, slots: Slots, features: Features, warm_up: WarmUp) -> None:
        self.sources = sources
        self.slots = slots
        self._features = features
        self._warm_up = warm_up

    async def adopt(self, domain: ServedDomain) -> DomainVersion:
        """A version of what the engine was started with."""
        files = self.sources.runtime.files[domain.name]
        store = await self._features.store_of(domain, files.features_path)
        opened = OpenedDomain(files, domain.bundle_hash)
        tenancy = Tenancy(domain.slot, opened, domain, num_added=0, features=store)
        return DomainVersion(self.sources.own(domain.name), domain, 0, store, {}, tenancy)

    async def load(self, ref: VersionRef, opened: OpenedDomain, name: str, state: DomainState) -> DomainVersion:
        """Place a version in a free slot and warm it up. Raises Vip5Error kinds; then nothing of it is left."""
        slot = self.slots.take()
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

    async def renew(self, version: DomainVersion, state: DomainState, name: str) -> DomainVersion:
        """The same version after its catalog or embeddings changed; in a slot of its own if its items did."""
        if version.catalog_revision == state.catalog_revision:
            return version
        if version.tenancy.num_added != len(state.changes.added):
            return await self.load(version.ref, version.tenancy.opened, name, state)
        return await asyncio.to_thread(self._revised, version.ref, version.tenancy, state, version)

    async def discard(self, version: DomainVersion) -> None:
        """Let go of a version that has no role, once nobody holds on to it."""
        self._features.drop(version.domain)
        self.slots.retire(version.tenancy)

    async def _place(
        self, slot: int, ref: VersionRef, opened: OpenedDomain, name: str, state: DomainState
    ) -> DomainVersion:
        placed = await asyncio.to_thread(self._prepare, slot, opened, name, state)
        files = opened.files
        await self.slots.place(slot, Placement(files.spec.layout, files.adapter, placed.trie))
        store = await self._features.store_of(placed, files.features_path)
        tenancy = Tenancy(slot, opened, placed, num_added=len(state.changes.added), features=store)
        return await asyncio.to_thread(self._revised, ref, tenancy, state)

    def _prepare(self, slot: int, opened: OpenedDomain, name: str, state: DomainState) -> ServedDomain:
        check_finite(opened.files.adapter, f"domains/{opened.files.spec.name}")
        tokenizer = self.sources.foundation.tokenizer
        files = with_added(opened.files, state.changes, tokenizer)
        files = replace(files, spec=replace(files.spec, name=name))
        return ServedDomain.of(slot, files, tokenizer, opened.bundle_hash)

    def _revised(
        self, ref: VersionRef, tenancy: Tenancy, state: DomainState, before: DomainVersion | None = None
    ) -> DomainVersion:
        """What a tenancy serves at a state; reads nothing but memory."""
        domain = tenancy.placed.with_catalog(with_values(tenancy.placed.catalog, state.changes))
        domain.eligible({})  # kept; every request asks for it
        rows = state.features.get(space_of(domain.spec), {})
        if before is not None and before.feature_rows is rows:
            features = before.features
        else:
            features = _patched(tenancy.features, rows)
        return DomainVersion(ref, domain, state.catalog_revision, features, rows, tenancy)


def space_of(spec: DomainSpec) -> str:
    """Names the image encoder and the width of what a domain reads."""
    encoder = spec.encoder.name if spec.encoder is not None else "unknown"
    return f"{encoder}/{spec.layout.feature_dim}"


def packed(feature: NDArray[np.float32]) -> str:
    """An embedding as the journal keeps it."""
    return base64.b64encode(feature.astype("<f4").tobytes()).decode()


def _patched(store: FeatureStore, rows: Mapping[str, str]) -> FeatureStore:
    if not rows:
        return store
    unpacked = {item_id: np.frombuffer(base64.b64decode(text), dtype="<f4") for item_id, text in rows.items()}
    return PatchedStore(store, unpacked)
