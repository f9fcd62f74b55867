"""What one process serves: the domains' states in the journal, and the versions loaded for them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model.errors import Vip5Error
from service.observability.metrics import Metrics
from service.versions.domain_version import DomainVersion
from service.versions.domains import Domains, Serving
from service.versions.followers import Followers, NoFollowers
from service.versions.journal import Journal, Kept, Update
from service.versions.members import Target
from service.versions.progress import Progress
from service.versions.state import (
    OWN_BUNDLE,
    AnyEntry,
    DomainState,
    Roles,
    RolesEntry,
    VersionRef,
    apply_entry,
)

if TYPE_CHECKING:
    from service.versions.version_loader import VersionLoader  # imports torch, which a worker does not

logger = logging.getLogger(__name__)


class Replica:
    """Keeps versions consistent with the journal. Changes of one domain are serialised; requests never wait."""

    def __init__(
        self,
        domains: Domains,
        loader: VersionLoader,
        journal: Journal,
        metrics: Metrics,
        followers: Followers | None = None,
    ) -> None:
        self.domains = domains
        self._followers = followers or NoFollowers()
        self.journal = journal
        self._loader = loader
        self._metrics = metrics
        self._states: dict[str, DomainState] = {}
        self._epochs: defaultdict[str, int] = defaultdict(int)  # of the states, as the journal counts them
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._superseded: defaultdict[str, set[DomainVersion]] = defaultdict(set)
        self.progress = Progress(journal)
        self._unserved: dict[str, Roles] = {}  # roles in the journal that could not be served

    def state(self, name: str) -> DomainState:
        return self._states.get(name, DomainState())

    def require(self, name: str) -> DomainVersion:
        """The stable version, or a loaded one if there is no stable one yet. Raises UnknownDomainError."""
        serving = self.domains.serving(name)
        first = next(iter(serving.versions.values()), None)
        return first if serving.stable is None and first is not None else self.domains.version(name)

    @property
    def problems(self) -> list[str]:
        """Faults of the journal, and domains that are not served as the journal says."""
        return [*self.journal.problems, *self.progress.faults.values(), *self._left_out()]

    def _left_out(self) -> Iterator[str]:
        """Embeddings in the journal that are none."""
        for name, serving in self.domains.items():
            num_rows = max((version.num_left_out for version in serving.versions.values()), default=0)
            if num_rows:
                yield (
                    f"{num_rows} embeddings that the journal has for the domain {name} are damaged or of another "
                    "width, and count as not put; put them again"
                )

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Exclusive right to change a domain."""
        async with self._locks[name]:
            yield

    async def start(self, own: Iterable[DomainVersion]) -> None:
        """Serve the states in the journal, starting from the versions in the service's own bundle."""
        for version in own:
            name, ref = version.domain.name, version.ref
            self._states[name] = DomainState(roles=Roles(stable=ref))
            self._publish(name, Serving(Roles(stable=ref), {ref: version}))
        states = await self.journal.open()
        await self._begin_applying(Update(self.journal.epoch, states))

    async def follow(self) -> None:
        """Apply changes by other replicas until cancelled."""
        async for update in self.journal.changes():
            await self._begin_applying(update)

    async def catch_up(self) -> None:
        """Apply the changes that other replicas have made so far. Raises JournalError."""
        update = await self.journal.catch_up()
        await asyncio.shield(self._begin_applying(update))  # nobody else is told of it

    def target(self, name: str | None = None) -> Target:
        """What is served of a domain, or else of all in the journal, as other replicas are to serve it."""
        if name is not None:
            revisions = {name: self.state(name).revision}
        elif self.journal.is_shared:
            revisions = dict(self.journal.revisions)
        else:
            revisions = {each: state.revision for each, state in self._states.items() if state.revision}
        return Target(self.journal.history, revisions)

    async def resolve(self, keep: Kept) -> None:
        """Begin a new history of the journal, and serve it. Raises OperationConflictError and JournalError."""
        await self.journal.resolve(keep)
        await self.catch_up()

    async def commit(
        self,
        entry: AnyEntry,
        fresh: Mapping[VersionRef, DomainVersion] | None = None,
    ) -> DomainState:
        """Append an entry to the journal and serve the state after it. The caller holds the domain's lock.

        `fresh` are versions that were loaded for the entry. Raises RevisionConflictError, JournalError and what loading
        raises; nothing has changed then.
        """
        name, state = entry.domain, apply_entry(self.state(entry.domain), entry)
        present = {**self.domains.serving(name).versions, **(fresh or {})}
        versions: dict[VersionRef, DomainVersion] = {}
        try:
            for ref in state.roles.refs:
                versions[ref] = await self._loader.revise(present[ref], state, name)
            await self._followers.prepare(name, versions.values())
            epoch = self.journal.epoch
            await self.journal.append(entry)
        except BaseException:
            self._followers.discard(set(versions.values()) - set(self.domains.serving(name).versions.values()))
            await self._discard(versions.values(), kept=present.values())
            raise
        self._states[name], self._epochs[name] = state, epoch
        if isinstance(entry, RolesEntry) or self._unserved.get(name, state.roles) == state.roles:
            self._forget_problem(name)
        before = self.domains.serving(name)
        self._publish(name, Serving(state.roles, versions))
        await self._discard([*before.versions.values(), *(fresh or {}).values()], kept=versions.values())
        await self._followers.published(name)
        self._note_published(name, before)
        logger.info("domain_changed", extra={"domain": name, "revision": state.revision, "change": _described(entry)})
        return state

    async def wait_superseded(self, name: str) -> None:
        """Wait for the rankings that still use superseded versions."""
        for version in list(self._superseded[name]):
            await version.rankings.wait_zero()
        self._superseded[name] = {each for each in self._superseded[name] if each.rankings.value}

    def superseded_holders(self, name: str) -> list[str]:
        """Ids of the requests that `wait_superseded` waits for."""
        return [holder for version in self._superseded[name] for holder in version.rankings.holders]

    def _begin_applying(self, update: Update) -> Coroutine[Any, Any, None]:
        """No request may count as answered from the whole journal between taking an update and applying it."""
        self.progress.begin()
        return self._apply(update)

    async def _apply(self, update: Update) -> None:
        try:
            for name, journaled in update.states.items():
                async with self.lock(name):
                    if (update.epoch, journaled.revision) > (self._epochs[name], self.state(name).revision):
                        self._epochs[name] = update.epoch
                        await self._try_to_reconcile(name, self._with_own_bundle(name, journaled))
        finally:
            self.progress.end(update.read_at)

    def _with_own_bundle(self, name: str, state: DomainState) -> DomainState:
        """References to the service's own bundle, which may have been another one when the journal was written."""
        if not state.has_roles:
            sources = self._loader.sources
            is_own = name in sources.runtime.files
            return replace(state, roles=Roles(stable=sources.own(name)) if is_own else Roles())

        def current(ref: VersionRef | None) -> VersionRef | None:
            return self._loader.sources.own(ref.domain) if ref is not None and ref.bundle == OWN_BUNDLE else ref

        roles = state.roles
        canary = roles.canary
        if canary is not None:
            canary = replace(canary, ref=current(canary.ref) or canary.ref)
        roles = Roles(
            current(roles.stable), current(roles.previous), current(roles.loaded), canary, current(roles.shadow)
        )
        return replace(state, roles=roles)

    async def _try_to_reconcile(self, name: str, state: DomainState) -> None:
        """On failure, keep the versions that are served, at the revision in the journal."""
        try:
            await self._reconcile(name, state)
        except Exception as error:
            logger.exception("state_not_realised", extra={"domain": name})
            self._states[name] = replace(state, roles=self.domains.serving(name).roles)
            self._unserved[name] = state.roles
            self.progress.faults[name] = f"the domain {name} is not served as the journal says: {error}"
            self._metrics.count_reload(name, ok=False)

    async def _reconcile(self, name: str, state: DomainState) -> None:
        """Serve a state. Versions that fail to load are reported, and the versions served before take their place."""
        before = self.domains.serving(name)
        versions: dict[VersionRef, DomainVersion] = {}
        faults: list[str] = []
        for ref in state.roles.refs:
            try:
                versions[ref] = await self._version(name, ref, state, before)
            except (Vip5Error, OSError) as error:
                logger.exception("version_not_loaded", extra={"domain": name, "version": ref.version})
                faults.append(f"version {ref.version} failed to load: {error}")
        roles = _without_missing(state.roles, versions)
        if roles.refs and roles.stable is None and before.roles.stable is not None:
            stable = before.roles.stable
            versions[stable] = await self._loader.revise(before.versions[stable], state, name)
            roles = replace(roles, stable=stable)
        elif not roles.refs and state.roles.refs:
            # No version loaded: keep the current ones, with the catalog of the state.
            for ref, version in before.versions.items():
                versions[ref] = await self._loader.revise(version, state, name)
            roles = before.roles
        try:
            await self._followers.prepare(name, versions.values())
        except BaseException:
            self._followers.discard(set(versions.values()) - set(before.versions.values()))
            await self._discard(versions.values(), kept=before.versions.values())
            raise
        self._forget_problem(name)
        if faults:
            self._unserved[name] = state.roles
            self.progress.faults[name] = f"the domain {name} is not served as the journal says: {'; '.join(faults)}"
            self._metrics.count_reload(name, ok=False)
        self._states[name] = replace(state, roles=roles)
        self._publish(name, Serving(roles, versions))
        await self._discard(before.versions.values(), kept=versions.values())
        await self._followers.published(name)
        self._note_published(name, before)

    def _note_published(self, name: str, before: Serving) -> None:
        superseded = set(before.versions.values()) - set(self.domains.serving(name).versions.values())
        self.progress.note_published(name, self._epochs[name], self.state(name).revision, superseded)

    def _forget_problem(self, name: str) -> None:
        """A domain is served as the journal says."""
        self.progress.faults.pop(name, None)
        self._unserved.pop(name, None)

    async def _version(self, name: str, ref: VersionRef, state: DomainState, before: Serving) -> DomainVersion:
        present = before.versions.get(ref)
        if present is not None:
            return await self._loader.revise(present, state, name)
        _, opened = await asyncio.to_thread(self._loader.sources.open, ref.bundle, ref.domain, ref.bundle_hash)
        return await self._loader.load(ref, opened, name, state)

    def _publish(self, name: str, serving: Serving) -> None:
        before = self.domains.serving(name)
        self.domains.publish(name, serving)
        self._followers.publish(name, serving)
        superseded = set(before.versions.values()) - set(serving.versions.values())
        self._superseded[name] |= {each for each in superseded if each.rankings.value}
        if serving.stable is None:
            self._metrics.drop_bundle(name)
        elif before.stable is None or before.stable.ref != serving.stable.ref:
            self._metrics.set_bundle(name, serving.stable.domain.bundle_hash)
            self._metrics.set_epoch_started()

    async def _discard(self, versions: Iterable[DomainVersion], kept: Iterable[DomainVersion]) -> None:
        """Discard versions, except those whose placed domain a kept version shares."""
        in_use = {version.placed for version in kept}
        for placed, version in {version.placed: version for version in versions}.items():
            if placed not in in_use:
                await self._loader.discard(version)


def _without_missing(roles: Roles, versions: Mapping[VersionRef, DomainVersion]) -> Roles:
    """The roles whose versions are loaded; the previous version replaces a stable one that is missing."""

    def present(ref: VersionRef | None) -> VersionRef | None:
        return ref if ref in versions else None

    canary = roles.canary if roles.canary is not None and roles.canary.ref in versions else None
    previous = present(roles.previous)
    stable = present(roles.stable) or (previous if roles.stable is not None else None)
    return Roles(stable, None if previous == stable else previous, present(roles.loaded), canary, present(roles.shadow))


def _described(entry: AnyEntry) -> str:
    return entry.action if isinstance(entry, RolesEntry) else entry.kind
