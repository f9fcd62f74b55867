"""Changes what is served: prepares a change, keeps it in the journal, and only then lets requests see it.

Everything here runs on the event loop; what takes long is done in threads by those who are called. Changes of one
domain take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.bundle.changes import CatalogChanges, check_changes, with_added
from model.bundle.manifest import check_domain_name
from model.errors import InputError, UnknownItemError
from service.errors import OperationConflictError, RevisionConflictError, UnknownVersionError
from service.observability.metrics import Metrics
from service.versions.domain_version import DomainVersion
from service.versions.loading import VersionLoader, packed, space_of
from service.versions.replica import Replica
from service.versions.state import Canary, CatalogEntry, DomainState, FeaturesEntry, Roles, RolesEntry, VersionRef

NUM_TRIES = 5
"""How often a change that was overtaken by one of another replica is made anew."""


@dataclass(frozen=True)
class Expectation:
    """What a caller of a change of the catalog takes for granted, and a key under which it is made once only."""

    revision: int | None = None
    key: str | None = None


class Administration:
    """The operations behind /admin. Each raises before anything is changed, or has changed all of it."""

    def __init__(self, replica: Replica, loader: VersionLoader, metrics: Metrics, *, puts_features: bool) -> None:
        """`puts_features` says whether embeddings are this service's own to change."""
        self.replica = replica
        self._loader = loader
        self._metrics = metrics
        self._puts_features = puts_features
        self._loading: set[str] = set()

    def is_loading(self, name: str) -> bool:
        return name in self._loading

    @property
    def num_slots(self) -> int:
        """Slots of the engine that are taken, by versions that are still being left as well."""
        return self._loader.slots.num_taken

    # Versions

    async def load(self, name: str, bundle: str, domain: str, *, activates: bool) -> VersionRef:
        """Load a version beside those that are served, and let it wait, or make it the stable one.

        Raises OperationConflictError where another one is being loaded or waits, BundleError kinds, UnknownBundleError
        and EngineError; what was served goes on being served.
        """
        if self.replica.state(name).roles.loaded is not None:
            raise OperationConflictError(
                f"a version of {name!r} is loaded already and has no role; swap to it, or let go of it with DELETE "
                f"/admin/domains/{name}/load"
            )
        check_domain_name(name)
        with self._loading_of(name):
            ref, opened = await asyncio.to_thread(self._loader.sources.open, bundle, domain)
            # The same content is one version, by whatever name it came.
            present = {each.version: each for each in self.replica.state(name).roles.refs}
            ref = present.get(ref.version, ref)
            fresh: dict[VersionRef, DomainVersion] = {}
            if ref not in self.replica.domains.serving(name).versions:
                fresh[ref] = await self._loader.load(ref, opened, name, self.replica.state(name))

            def roles_after(roles: Roles) -> Roles:
                if activates:
                    return roles if roles.stable == ref else roles.swapped(ref)
                if ref in roles.refs:
                    raise OperationConflictError(f"the version {ref.version} of {name!r} is loaded already")
                return replace(roles, loaded=ref)

            try:
                await self._change_roles(name, "load", roles_after, fresh)
            except BaseException:
                for version in fresh.values():
                    await self._loader.discard(version)
                raise
        return ref

    async def discard_loaded(self, name: str) -> None:
        """Let go of the version that waits. Raises OperationConflictError if there is none."""

        def roles_after(roles: Roles) -> Roles:
            if roles.loaded is None:
                raise OperationConflictError(f"no version of {name!r} waits for a role")
            return replace(roles, loaded=None)

        await self._change_roles(name, "discard", roles_after)

    async def swap(self, name: str, version: str | None, expected: str | None) -> VersionRef:
        """Make a loaded version the stable one; left out, it is the one that waits.

        Raises RevisionConflictError if the stable version is not the expected one.
        """

        def roles_after(roles: Roles) -> Roles:
            stable = None if roles.stable is None else roles.stable.version
            if expected is not None and stable != expected:
                raise RevisionConflictError(f"the stable version of {name!r} is {stable}, not {expected}; look anew")
            if version is not None:
                return roles.swapped(_find(name, roles, version))
            if roles.loaded is None:
                raise OperationConflictError(f"no version of {name!r} waits for a role; load one, or name a version")
            return roles.swapped(roles.loaded)

        return await self._change_roles(name, "swap", roles_after)

    async def roll_back(self, name: str) -> VersionRef:
        """Swap back to the version before; doing it twice undoes it."""

        def roles_after(roles: Roles) -> Roles:
            if roles.previous is None:
                raise OperationConflictError(f"{name!r} has no version before the stable one; nothing was swapped yet")
            return roles.swapped(roles.previous)

        return await self._change_roles(name, "roll back", roles_after)

    async def unload(self, name: str) -> None:
        """Serve a domain no more; requests that run end as usual."""
        self.replica.require(name)
        await self._change_roles(name, "unload", lambda _: Roles())

    async def set_canary(self, name: str, version: str, share: float, salt: str | None) -> None:
        """Let a share of the users get a loaded version."""

        def roles_after(roles: Roles) -> Roles:
            ref = _not_stable(name, roles, version)
            return replace(_taken(roles, ref), canary=Canary(ref, share, ref.version if salt is None else salt))

        await self._change_roles(name, "canary", roles_after)

    async def end_canary(self, name: str) -> None:
        def roles_after(roles: Roles) -> Roles:
            _canary_of(name, roles)
            return replace(roles, canary=None)

        await self._change_roles(name, "end canary", roles_after)

    async def promote_canary(self, name: str) -> VersionRef:
        """Make the canary the stable version."""
        return await self._change_roles(
            name, "promote canary", lambda roles: roles.swapped(_canary_of(name, roles).ref)
        )

    async def set_shadow(self, name: str, version: str) -> None:
        """Let a loaded version answer every request, too, for nobody but the metrics."""

        def roles_after(roles: Roles) -> Roles:
            ref = _not_stable(name, roles, version)
            return replace(_taken(roles, ref), shadow=ref)

        await self._change_roles(name, "shadow", roles_after)

    async def end_shadow(self, name: str) -> None:
        def roles_after(roles: Roles) -> Roles:
            if roles.shadow is None:
                raise OperationConflictError(f"{name!r} has no shadow")
            return replace(roles, shadow=None)

        await self._change_roles(name, "end shadow", roles_after)

    # The catalog

    async def change_catalog(self, name: str, changes: CatalogChanges, expects: Expectation) -> int:
        """Change items in all versions, and wait until every ranking that began before has ended.

        Returns the catalog's revision. Raises RevisionConflictError, UnknownItemError, InputError and CatalogError.
        """

        def entry_after(state: DomainState) -> CatalogEntry:
            return CatalogEntry(name, state.revision + 1, changes, expects.key)

        return await self._change_items(name, expects, lambda version: self._check(version, changes), entry_after)

    async def put_features(self, name: str, rows: Mapping[str, NDArray[np.float32]], expects: Expectation) -> int:
        """Put embeddings of items; they win over the bundle's. Returns the catalog's revision.

        Raises InputError for rows that the domain's model cannot read, OperationConflictError where Redis has them.
        """
        if not self._puts_features:
            raise OperationConflictError(
                "embeddings of this service are in Redis; put them there with `vip5 features put` or `vip5 features "
                "load`"
            )
        spec = self.replica.require(name).domain.spec

        def entry_after(state: DomainState) -> FeaturesEntry:
            texts = {item_id: packed(row) for item_id, row in rows.items()}
            return FeaturesEntry(name, state.revision + 1, space_of(spec), texts)

        return await self._change_items(name, expects, lambda version: _check_rows(version, rows), entry_after)

    async def _change_items(
        self,
        name: str,
        expects: Expectation,
        check: Callable[[DomainVersion], None],
        entry_after: Callable[[DomainState], CatalogEntry | FeaturesEntry],
    ) -> int:
        for attempt in range(NUM_TRIES):
            async with self.replica.turn(name):
                version, state = self.replica.require(name), self.replica.state(name)
                revision = state.revision_of(expects.key)
                if revision is not None:
                    break
                if expects.revision not in (None, state.catalog_revision):
                    raise RevisionConflictError(
                        f"the catalog of {name!r} is at revision {state.catalog_revision}, not {expects.revision}; "
                        "look at what was changed, and try again with that revision"
                    )
                await asyncio.to_thread(check, version)
                try:
                    state = await self.replica.commit(entry_after(state))
                except RevisionConflictError:
                    if attempt == NUM_TRIES - 1:
                        raise
                else:
                    revision = state.catalog_revision
                    break
            await self.replica.catch_up()
        assert revision is not None
        await self.replica.settled(name)
        return revision

    def _check(self, version: DomainVersion, changes: CatalogChanges) -> None:
        tokenizer = self._loader.sources.foundation.tokenizer
        files = version.tenancy.opened.files
        if changes.added:
            files = with_added(files, self.replica.state(version.domain.name).changes, tokenizer)
        check_changes(files, version.domain.catalog, changes, tokenizer)

    async def _change_roles(
        self,
        name: str,
        action: str,
        roles_after: Callable[[Roles], Roles],
        fresh: Mapping[VersionRef, DomainVersion] | None = None,
    ) -> VersionRef:
        """Returns the stable version, if there is one. Raises what `roles_after` raises, and RevisionConflictError."""
        async with self.replica.turn(name):
            state = self.replica.state(name)
            if not state.roles.refs and fresh is None:
                self.replica.require(name)
            roles = roles_after(state.roles)
            if roles != state.roles:
                await self.replica.commit(RolesEntry(name, state.revision + 1, action, roles), fresh or {})
        return roles.stable or next(iter(roles.refs), VersionRef("", "", name))

    @contextmanager
    def _loading_of(self, name: str) -> Iterator[None]:
        """One load of a domain at a time, which is counted."""
        if name in self._loading:
            raise OperationConflictError(f"another version of {name!r} is being loaded; wait for it")
        self._loading.add(name)
        try:
            yield
        except Exception:
            self._metrics.count_reload(name, ok=False)
            raise
        else:
            self._metrics.count_reload(name, ok=True)
        finally:
            self._loading.discard(name)


def _find(name: str, roles: Roles, version: str) -> VersionRef:
    for ref in roles.refs:
        if ref.version == version:
            return ref
    known = ", ".join(ref.version for ref in roles.refs) or "none"
    raise UnknownVersionError(f"no version {version!r} of {name!r} is loaded; loaded are: {known}")


def _not_stable(name: str, roles: Roles, version: str) -> VersionRef:
    ref = _find(name, roles, version)
    if ref == roles.stable:
        raise OperationConflictError(f"{version} is the stable version of {name!r}; name another one")
    if roles.stable is None:
        raise OperationConflictError(f"{name!r} has no stable version yet; swap to one first")
    return ref


def _taken(roles: Roles, ref: VersionRef) -> Roles:
    """The roles when a version that may have waited does so no more."""
    return replace(roles, loaded=None) if roles.loaded == ref else roles


def _canary_of(name: str, roles: Roles) -> Canary:
    if roles.canary is None:
        raise OperationConflictError(f"{name!r} has no canary")
    return roles.canary


def _check_rows(version: DomainVersion, rows: Mapping[str, NDArray[np.float32]]) -> None:
    dim = version.domain.spec.layout.feature_dim
    for item_id, row in rows.items():
        if version.domain.catalog.row_of(item_id) is None:
            raise UnknownItemError(f"item {item_id!r} is not in the catalog; add it first", field=f"features.{item_id}")
        if len(row) != dim:
            raise InputError(
                f"the embedding of {item_id!r} is {len(row)} wide, the model reads {dim}; encode the picture with the "
                "encoder that GET /domains names",
                field=f"features.{item_id}",
            )
