"""The versions that a worker serves, as the engine process tells it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

from feature_cache.background import Background
from model.bundle.domain_files import Foundation, OpenedDomain
from model.bundle.index.index import Index
from model.bundle.index.sealed import SealedMemory
from model.bundle.planning_files import open_planning_files
from model.bundle.signatures import TrustedKeys
from service.channel.channel import Channel
from service.channel.messages import Acknowledged, Discard, Forgotten, Prepare, Publish, Settled
from service.versions.building import build_domain, version_at
from service.versions.bundles import find_bundle
from service.versions.domain_version import DomainVersion, PlacedDomain, ReferenceCount
from service.versions.domains import Domains, Serving
from service.versions.features import Features
from service.versions.formats import decode_states
from service.versions.state import OWN_BUNDLE, DomainState, VersionRef

logger = logging.getLogger(__name__)


class BundleFolders:
    """Where the files of versions are, and how they are opened."""

    def __init__(self, own: Path, root: Path | None, foundation: Foundation, trusted: TrustedKeys | None) -> None:
        self.foundation = foundation
        self._own = own
        self._root = root
        self._trusted = trusted
        self._opened: WeakValueDictionary[tuple[str, str], OpenedDomain] = WeakValueDictionary()

    def open(self, ref: VersionRef, index: Index | None) -> OpenedDomain:
        """A domain's files, as the engine process has verified them. Raises BundleError kinds and OSError."""
        key = ref.bundle_hash, ref.domain
        opened = self._opened.get(key)
        if opened is None:
            folder = self._own if ref.bundle == OWN_BUNDLE else find_bundle(self._root, ref.bundle)
            opened = open_planning_files(folder, ref.domain, ref.bundle_hash, self.foundation, self._trusted, index)
            self._opened[key] = opened
        return opened


@dataclass(frozen=True)
class _Prepared:
    """A version, and the placed domain that it shares with others."""

    version: DomainVersion
    placed: PlacedDomain


class WorkerVersions:
    """Builds, publishes and forgets versions in the order of the messages. Used on the event loop only."""

    def __init__(
        self,
        domains: Domains,
        folders: BundleFolders,
        features: Features,
        channel: Channel,
        shared: socket.socket,
        background: Background,
    ) -> None:
        """Descriptors of shared memory come over `shared`."""
        self._domains = domains
        self._folders = folders
        self._features = features
        self._channel = channel
        self._shared = shared
        self._background = background
        self._versions: dict[int, _Prepared] = {}
        self._placements: WeakValueDictionary[int, PlacedDomain] = WeakValueDictionary()
        self._superseded: dict[int, DomainVersion] = {}
        self.when_superseded: Callable[[], None] = lambda: None
        """Called after versions were superseded."""
        self._messages: asyncio.Queue[Prepare | Publish | Discard] = asyncio.Queue()

    @property
    def requests(self) -> Mapping[int, int]:
        """Numbers of requests in progress by version, as far as there are some."""
        counts = {number: each.version.placed.references.value for number, each in self._versions.items()}
        return {number: count for number, count in counts.items() if count}

    @property
    def rankings(self) -> Mapping[int, list[str]]:
        """Ids of the rankings that still use superseded versions, by version."""
        return {number: ids for number, each in self._superseded.items() if (ids := each.rankings.holders)}

    def handle(self, message: Prepare | Publish | Discard) -> None:
        self._messages.put_nowait(message)

    async def follow(self) -> None:
        """Do what the engine process says until cancelled."""
        while True:
            message = await self._messages.get()
            if isinstance(message, Discard):
                self._forget(message.version)
                continue
            error = None
            try:
                if isinstance(message, Prepare):
                    await self._prepare(message)
                else:
                    self._publish(message)
            except Exception as failure:
                logger.exception("change_failed", extra={"domain": message.name})
                error = f"{type(failure).__name__}: {failure}"
            self._channel.send(Acknowledged(message.number, error))

    async def _prepare(self, message: Prepare) -> None:
        state = decode_states(message.state)[message.name]
        ref = VersionRef(*message.ref)
        index = await asyncio.to_thread(self._receive_index) if message.has_index else None
        shared = self._placements.get(message.placement)
        placed = await self._place(message, ref, state, index) if shared is None else shared
        own = replace(placed, references=ReferenceCount())  # a version is forgotten by itself
        try:
            version = await asyncio.to_thread(version_at, ref, own, state)
        except BaseException:
            if shared is None:
                self._features.drop(placed.domain)
            raise
        self._placements[message.placement] = placed
        # Plans name the version by the slot of its domain.
        version = replace(version, domain=replace(version.domain, slot=message.version))
        self._versions[message.version] = _Prepared(version, placed)

    def _receive_index(self) -> Index:
        """The compiled catalog of the next version. Raises IntegrityError and OSError."""
        _, descriptors, _, _ = socket.recv_fds(self._shared, 1, 1)
        (descriptor,) = descriptors
        return Index.open(SealedMemory(descriptor))

    async def _place(self, message: Prepare, ref: VersionRef, state: DomainState, index: Index | None) -> PlacedDomain:
        opened = await asyncio.to_thread(self._folders.open, ref, index)
        domain = await asyncio.to_thread(
            build_domain, message.slot, opened, message.name, state, self._folders.foundation.tokenizer
        )
        store = await self._features.store_of(domain, opened.files.features)
        return PlacedDomain(message.slot, opened, domain, added=state.changes.added, features=store)

    def _publish(self, message: Publish) -> None:
        name = message.name
        roles = decode_states(message.state)[name].roles
        prepared = [self._versions[number].version for number in message.versions]
        versions = dict(zip(roles.refs, prepared, strict=True))
        before = set(self._domains.serving(name).versions.values())
        self._domains.publish(name, Serving(roles, versions))
        superseded = before - set(prepared)
        for number, each in list(self._versions.items()):
            if each.version in superseded:
                self._retire(number, each.version)
        self.when_superseded()

    def _retire(self, number: int, version: DomainVersion) -> None:
        """Say when the last ranking of a superseded version has ended, and when nothing uses it any more."""

        async def settle() -> None:
            await version.rankings.wait_zero()
            del self._superseded[number]
            self._channel.send(Settled(number))
            await version.placed.references.wait_zero()
            self._forget(number)

        if version.placed.references.value:
            self._superseded[number] = version
            self._background.once("retire", settle)
        else:
            self._forget(number)

    def _forget(self, number: int) -> None:
        prepared = self._versions.pop(number, None)
        if prepared is None:
            return
        if all(each.placed is not prepared.placed for each in self._versions.values()):
            self._features.drop(prepared.version.domain)
        self._channel.send(Forgotten(number))
