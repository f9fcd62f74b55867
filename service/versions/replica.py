"""What one process serves: the states that the journal gives, and the versions that make them true."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from model.errors import Vip5Error
from service.observability.metrics import Metrics
from service.versions.domain_version import DomainVersion
from service.versions.domains import Domains, Serving
from service.versions.journal import Journal
from service.versions.loading import VersionLoader
from service.versions.state import (
    OWN_BUNDLE,
    CatalogEntry,
    DomainState,
    FeaturesEntry,
    Roles,
    RolesEntry,
    States,
    VersionRef,
    follow,
)

logger = logging.getLogger(__name__)


class Replica:
    """Holds states and versions together. Changes of one domain take turns; requests are never held up."""

    def __init__(self, domains: Domains, loader: VersionLoader, journal: Journal, metrics: Metrics) -> None:
        self.domains = domains
        self.journal = journal
        self._loader = loader
        self._metrics = metrics
        self._states: dict[str, DomainState] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._superseded: defaultdict[str, set[DomainVersion]] = defaultdict(set)
        self._problems: dict[str, str] = {}

    def state(self, name: str) -> DomainState:
        return self._states.get(name, DomainState())

    def require(self, name: str) -> DomainVersion:
        """The stable version, or one that is loaded before there is a stable one. Raises UnknownDomainError."""
        serving = self.domains.serving(name)
        first = next(iter(serving.versions.values()), None)
        return first if serving.stable is None and first is not None else self.domains.version(name)

    @property
    def problems(self) -> list[str]:
        """Where what is served is not what the journal says, and what is wrong with the journal."""
        return [*self.journal.problems, *self._problems.values()]

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Inside, nobody else changes the domain."""
        async with self._turns[name]:
            yield

    async def start(self, own: Iterable[DomainVersion]) -> None:
        """Serve what the journal says, over the versions that the engine was started with."""
        for version in own:
            name, ref = version.domain.name, version.ref
            self._states[name] = DomainState(roles=Roles(stable=ref))
            self._show(name, Serving(Roles(stable=ref), {ref: version}))
        await self._adopt(await self.journal.open())

    async def follow(self) -> None:
        """Keep up with changes made elsewhere until cancelled."""
        async for states in self.journal.news():
            await self._adopt(states)

    async def catch_up(self) -> None:
        """Make changes that were made elsewhere one's own. Raises JournalError."""
        await self._adopt(await self.journal.catch_up())

    async def commit(
        self,
        entry: RolesEntry | CatalogEntry | FeaturesEntry,
        fresh: Mapping[VersionRef, DomainVersion] | None = None,
    ) -> DomainState:
        """Bring about the state after an entry; `fresh` are versions that were loaded for it. Within a turn.

        Raises RevisionConflictError and JournalError, and whatever making versions raises; then nothing has changed.
        """
        name, state = entry.domain, follow(self.state(entry.domain), entry)
        present = {**self.domains.serving(name).versions, **(fresh or {})}
        versions: dict[VersionRef, DomainVersion] = {}
        try:
            for ref in state.roles.refs:
                versions[ref] = await self._loader.renew(present[ref], state, name)
            await self.journal.append(entry)
        except BaseException:
            await self._discard(versions.values(), kept=present.values())
            raise
        self._states[name] = state
        self._problems.pop(name, None)
        before = self.domains.serving(name)
        self._show(name, Serving(state.roles, versions))
        await self._discard([*before.versions.values(), *(fresh or {}).values()], kept=versions.values())
        logger.info("domain_changed", extra={"domain": name, "revision": state.revision, "change": _described(entry)})
        return state

    async def settled(self, name: str) -> None:
        """Wait until every ranking by a version that is served no more has ended."""
        for version in list(self._superseded[name]):
            await version.rankings.gone()
        self._superseded[name] = {each for each in self._superseded[name] if each.rankings.num}

    async def _adopt(self, states: States) -> None:
        for name, journaled in states.items():
            async with self.turn(name):
                if journaled.revision > self.state(name).revision:
                    await self._try_to_realise(name, self._as_ours(name, journaled))

    def _as_ours(self, name: str, state: DomainState) -> DomainState:
        """The service's own bundle is whatever it was started with, which may be another one than then."""
        if not state.has_roles:
            sources = self._loader.sources
            is_own = name in sources.runtime.files
            return replace(state, roles=Roles(stable=sources.own(name)) if is_own else Roles())

        def ours(ref: VersionRef | None) -> VersionRef | None:
            return self._loader.sources.own(ref.domain) if ref is not None and ref.bundle == OWN_BUNDLE else ref

        roles = state.roles
        canary = roles.canary
        if canary is not None:
            canary = replace(canary, ref=ours(canary.ref) or canary.ref)
        roles = Roles(ours(roles.stable), ours(roles.previous), ours(roles.loaded), canary, ours(roles.shadow))
        return replace(state, roles=roles)

    async def _try_to_realise(self, name: str, state: DomainState) -> None:
        """Whatever fails, the service goes on with what it serves, and takes further changes from there."""
        try:
            await self._realise(name, state)
        except Exception as error:
            logger.exception("state_not_realised", extra={"domain": name})
            self._states[name] = replace(state, roles=self.domains.serving(name).roles)
            self._problems[name] = f"the domain {name} is not served as the journal says: {error}"
            self._metrics.count_reload(name, ok=False)

    async def _realise(self, name: str, state: DomainState) -> None:
        """Serve a state as far as it can be; what cannot be is told, and what was good before is served instead."""
        before = self.domains.serving(name)
        versions: dict[VersionRef, DomainVersion] = {}
        faults: list[str] = []
        for ref in state.roles.refs:
            try:
                versions[ref] = await self._version(name, ref, state, before)
            except (Vip5Error, OSError) as error:
                logger.exception("version_not_loaded", extra={"domain": name, "version": ref.version})
                faults.append(f"the version {ref.version} is not served: {error}")
        roles = _without_missing(state.roles, versions)
        if roles.refs and roles.stable is None and before.roles.stable is not None:
            stable = before.roles.stable
            versions[stable] = await self._loader.renew(before.versions[stable], state, name)
            roles = replace(roles, stable=stable)
        elif not roles.refs and state.roles.refs:
            # Nothing of it can be served, so what is served stays, at the catalog that the journal says.
            for ref, version in before.versions.items():
                versions[ref] = await self._loader.renew(version, state, name)
            roles = before.roles
        self._problems.pop(name, None)
        if faults:
            self._problems[name] = f"the domain {name} is not served as the journal says: {'; '.join(faults)}"
            self._metrics.count_reload(name, ok=False)
        self._states[name] = replace(state, roles=roles)
        self._show(name, Serving(roles, versions))
        await self._discard(before.versions.values(), kept=versions.values())

    async def _version(self, name: str, ref: VersionRef, state: DomainState, before: Serving) -> DomainVersion:
        present = before.versions.get(ref)
        if present is not None:
            return await self._loader.renew(present, state, name)
        _, opened = await asyncio.to_thread(self._loader.sources.open, ref.bundle, ref.domain, ref.bundle_hash)
        return await self._loader.load(ref, opened, name, state)

    def _show(self, name: str, serving: Serving) -> None:
        before = self.domains.serving(name)
        self.domains.show(name, serving)
        kept = set(serving.versions.values())
        self._superseded[name] |= {each for each in before.versions.values() if each not in kept and each.rankings.num}
        if serving.stable is None:
            self._metrics.drop_bundle(name)
        elif before.stable is None or before.stable.ref != serving.stable.ref:
            self._metrics.set_bundle(name, serving.stable.domain.bundle_hash)
            self._metrics.set_epoch_started()

    async def _discard(self, versions: Iterable[DomainVersion], kept: Iterable[DomainVersion]) -> None:
        """Let go of versions whose tenancy none of the kept ones shares."""
        kept_tenancies = {version.tenancy for version in kept}
        for tenancy, version in {version.tenancy: version for version in versions}.items():
            if tenancy not in kept_tenancies:
                await self._loader.discard(version)


def _without_missing(roles: Roles, versions: Mapping[VersionRef, DomainVersion]) -> Roles:
    """The roles as far as their versions are there; the previous one takes the place of a stable one that is not."""

    def there(ref: VersionRef | None) -> VersionRef | None:
        return ref if ref in versions else None

    canary = roles.canary if roles.canary is not None and roles.canary.ref in versions else None
    previous = there(roles.previous)
    stable = there(roles.stable) or (previous if roles.stable is not None else None)
    return Roles(stable, None if previous == stable else previous, there(roles.loaded), canary, there(roles.shadow))


def _described(entry: RolesEntry | CatalogEntry | FeaturesEntry) -> str:
    return entry.action if isinstance(entry, RolesEntry) else entry.kind
