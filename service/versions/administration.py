"""Changes the served versions: prepares a change, appends it to the journal, and only then applies it to requests.

Runs on the event loop; slow work runs in threads. Changes of one domain are serialised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.bundle.changes import CatalogChanges, check_changes, with_added
from model.bundle.manifest import check_domain_name
from model.errors import InputError, UnknownItemError
from service.errors import ChangeTimeoutError, OperationConflictError, RevisionConflictError, UnknownVersionError
from service.observability.metrics import Metrics
from service.versions.building import feature_to_base64, space_of
from service.versions.domain_version import DomainVersion
from service.versions.journal import Kept
from service.versions.replica import Replica
from service.versions.state import Canary, CatalogEntry, DomainState, FeaturesEntry, Roles, RolesEntry, VersionRef

if TYPE_CHECKING:
    from service.versions.version_loader import VersionLoader  # imports torch, which a worker does not

MAX_ATTEMPTS = 5
"""Attempts at a change that conflicts with changes by other replicas."""
MAX_NAMED = 5
"""Most requests that an error names."""


@dataclass(frozen=True)
class Precondition:
    """The catalog's expected revision, and an idempotency key under which a change is made at most once."""

    revision: int | None = None
    idempotency_key: str | None = None


class Administration:
    """The operations of /admin. Each is atomic: if it raises, nothing has changed."""

    def __init__(
        self, replica: Replica, loader: VersionLoader, metrics: Metrics, *, can_put_features: bool, wait_s: float
    ) -> None:
        """`can_put_features` is false where embeddings are in Redis; `wait_s` limits each wait for others."""
        self.replica = replica
        self._loader = loader
        self._metrics = metrics
        self._can_put_features = can_put_features
        self._wait_s = wait_s
        self._changing: dict[str, str] = {}
        self._loading: set[str] = set()

    def is_loading(self, name: str) -> bool:
        return name in self._loading

    @property
    def num_slots(self) -> int:
        """Allocated slots of the engine, including those that are about to be freed."""
        return self._loader.slots.num_allocated

    async def resolve_journal(self, keep: Kept) -> None:
        """Decide which of two histories of the journal all replicas follow.

        Raises OperationConflictError, RevisionConflictError and JournalError.
        """
        await self.replica.resolve(keep)

    # Versions

    async def load(self, name: str, bundle: str, domain: str, *, activates: bool) -> VersionRef:
        """Load a version while others are served, and make it the stable one with `activates`.

        Raises OperationConflictError if another version is loading or in the role `loaded`, BundleError kinds,
        UnknownBundleError and EngineError.
        """
        if self.replica.state(name).roles.loaded is not None:
            raise OperationConflictError(
                f"{name!r} already has a version in the role `loaded`; swap to it, or discard it with DELETE "
                f"/admin/domains/{name}/load"
            )
        check_domain_name(name)
        with self._loading_of(name):
            ref, opened = await asyncio.to_thread(self._loader.sources.open, bundle, domain)
            # Bundles with the same content are one version, whatever their names.
            present = {each.version: each for each in self.replica.state(name).roles.refs}
            ref = present.get(ref.version, ref)
            fresh: dict[VersionRef, DomainVersion] = {}
            if ref not in self.replica.domains.serving(name).versions:
                fresh[ref] = await self._loader.load(ref, opened, name, self.replica.state(name))

            def roles_after(roles: Roles) -> Roles:
                if activates:
                    return roles if roles.stable == ref else roles.swapped(ref)
                if ref in roles.refs:
                    raise OperationConflictError(f"version {ref.version} of {name!r} is already loaded")
                return replace(roles, loaded=ref)

            try:
                await self._change_roles(name, "load", roles_after, fresh)
            except BaseException:
                for version in fresh.values():
                    await self._loader.discard(version)
                raise
        return ref

    async def discard_loaded(self, name: str) -> None:
        """Discard the version in the role `loaded`. Raises OperationConflictError if there is none."""

        def roles_after(roles: Roles) -> Roles:
            if roles.loaded is None:
                raise OperationConflictError(f"{name!r} has no version in the role `loaded` to discard")
            return replace(roles, loaded=None)

        await self._change_roles(name, "discard", roles_after)

    async def swap(self, name: str, version: str | None, expected: str | None) -> VersionRef:
        """Make a version the stable one; by default, the one in the role `loaded`.

        Raises RevisionConflictError if the stable version is not the expected one.
        """

        def roles_after(roles: Roles) -> Roles:
            stable = None if roles.stable is None else roles.stable.version
            if expected is not None and stable != expected:
                raise RevisionConflictError(
                    f"the stable version of {name!r} is {stable}, not {expected}; get it and retry"
                )
            if version is not None:
                return roles.swapped(_find(name, roles, version))
            if roles.loaded is None:
                raise OperationConflictError(
                    f"{name!r} has no version in the role `loaded`; load one, or name a version"
                )
            return roles.swapped(roles.loaded)

        return await self._change_roles(name, "swap", roles_after)

    async def roll_back(self, name: str) -> VersionRef:
        """Swap the stable and the previous version."""

        def roles_after(roles: Roles) -> Roles:
            if roles.previous is None:
                raise OperationConflictError(f"{name!r} has no previous version to roll back to; it was never swapped")
            return roles.swapped(roles.previous)

        return await self._change_roles(name, "roll back", roles_after)

    async def unload(self, name: str) -> None:
        """Stop serving a domain; running requests complete."""
        self.replica.require(name)
        await self._change_roles(name, "unload", lambda _: Roles())

    async def set_canary(self, name: str, version: str, share: float, salt: str | None) -> None:
        """Route a share of the users to a loaded version."""

        def roles_after(roles: Roles) -> Roles:
            ref = _not_stable(name, roles, version)
            return replace(
                _without_loaded(roles, ref), canary=Canary(ref, share, ref.version if salt is None else salt)
            )

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
        """Repeat requests on a loaded version and compare its answers in the metrics."""

        def roles_after(roles: Roles) -> Roles:
            ref = _not_stable(name, roles, version)
            return replace(_without_loaded(roles, ref), shadow=ref)

        await self._change_roles(name, "shadow", roles_after)

    async def end_shadow(self, name: str) -> None:
        def roles_after(roles: Roles) -> Roles:
            if roles.shadow is None:
                raise OperationConflictError(f"{name!r} has no shadow")
            return replace(roles, shadow=None)

        await self._change_roles(name, "end shadow", roles_after)

    # The catalog

    async def change_catalog(self, name: str, changes: CatalogChanges, precondition: Precondition) -> int:
        """Change items in all versions, and wait for the rankings that began before.

        Returns the catalog's revision. Raises RevisionConflictError, UnknownItemError, InputError, CatalogError and
        ChangeTimeoutError.
        """

        def entry_after(state: DomainState) -> CatalogEntry:
            return CatalogEntry(name, state.revision + 1, changes, precondition.idempotency_key)

        return await self._change_items(name, precondition, lambda version: self._check(version, changes), entry_after)

    async def put_features(self, name: str, rows: Mapping[str, NDArray[np.float32]], precondition: Precondition) -> int:
        """Put embeddings of items, which override the bundle's. Returns the catalog's revision.

        Raises InputError for embeddings of the wrong width, OperationConflictError if embeddings are in Redis.
        """
        if not self._can_put_features:
            raise OperationConflictError(
                "this service reads embeddings from Redis; put them there with `vip5 features put` or `vip5 features "
                "load`"
            )
        spec = self.replica.require(name).domain.spec

        def entry_after(state: DomainState) -> FeaturesEntry:
            texts = {item_id: feature_to_base64(row) for item_id, row in rows.items()}
            return FeaturesEntry(name, state.revision + 1, space_of(spec), texts, precondition.idempotency_key)

        return await self._change_items(name, precondition, lambda version: _check_rows(version, rows), entry_after)

    async def _change_items(
        self,
        name: str,
        precondition: Precondition,
        check: Callable[[DomainVersion], None],
        entry_after: Callable[[DomainState], CatalogEntry | FeaturesEntry],
    ) -> int:
        for attempt in range(MAX_ATTEMPTS):
            async with self._exclusive(name, "a change of items"):
                version, state = self.replica.require(name), self.replica.state(name)
                entry = entry_after(state)
                if state.is_taken(entry):
                    raise OperationConflictError(
                        f"the idempotency key {precondition.idempotency_key!r} belongs to another change of {name!r}, "
                        "so nothing was changed; use a new key for each change"
                    )
                revision = state.revision_of(precondition.idempotency_key)
                if revision is not None:
                    break
                if precondition.revision not in (None, state.catalog_revision):
                    raise RevisionConflictError(
                        f"the catalog of {name!r} is at revision {state.catalog_revision}, not {precondition.revision};"
                        " get the current catalog and retry with its revision"
                    )
                await asyncio.to_thread(check, version)
                try:
                    state = await self.replica.commit(entry)
                except RevisionConflictError:
                    if attempt == MAX_ATTEMPTS - 1:
                        raise
                else:
                    revision = state.catalog_revision
                    break
            await self.replica.catch_up()
        assert revision is not None
        await self._wait_for_rankings(name, revision)
        return revision

    async def _wait_for_rankings(self, name: str, revision: int) -> None:
        """Raises ChangeTimeoutError, which names the requests that still use what was before the change."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self.replica.wait_superseded(name)
        except TimeoutError as error:
            holders = self.replica.superseded_holders(name)
            raise ChangeTimeoutError(
                f"the catalog of {name!r} is changed (revision {revision}) and answers all new requests, but "
                f"{len(holders)} that began before are not answered after {self._wait_s:g} s: {_listed(holders)}; "
                "repeat the change with the same idempotency_key to wait for them again"
            ) from error

    @asynccontextmanager
    async def _exclusive(self, name: str, change: str) -> AsyncIterator[None]:
        """The exclusive right to change a domain. Raises ChangeTimeoutError, which names the other change."""
        async with AsyncExitStack() as locked:
            try:
                async with asyncio.timeout(self._wait_s):
                    await locked.enter_async_context(self.replica.lock(name))
            except TimeoutError as error:
                other = self._changing.get(name, "a change in the journal")
                raise ChangeTimeoutError(
                    f"{other} of {name!r} has been in progress for more than {self._wait_s:g} s; nothing has changed, "
                    "so repeat this one later"
                ) from error
            self._changing[name] = change
            try:
                yield
            finally:
                del self._changing[name]

    def _check(self, version: DomainVersion, changes: CatalogChanges) -> None:
        tokenizer = self._loader.sources.foundation.tokenizer
        files = version.placed.opened.files
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
        """Returns the stable version, if any.

        Raises RevisionConflictError, ChangeTimeoutError and whatever `roles_after` raises.
        """
        async with self._exclusive(name, f"the change of roles {action!r}"):
            state = self.replica.state(name)
            if not state.roles.refs and fresh is None:
                self.replica.require(name)
            roles = roles_after(state.roles)
            if roles != state.roles:
                await self.replica.commit(RolesEntry(name, state.revision + 1, action, roles), fresh or {})
        return roles.stable or next(iter(roles.refs), VersionRef("", "", name))

    @contextmanager
    def _loading_of(self, name: str) -> Iterator[None]:
        """Allow one load per domain at a time, and count its outcome."""
        if name in self._loading:
            raise OperationConflictError(f"another version of {name!r} is being loaded; retry when it is done")
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


def _listed(holders: Sequence[str]) -> str:
    more = f" and {len(holders) - MAX_NAMED} more" if len(holders) > MAX_NAMED else ""
    return f"request {', '.join(holders[:MAX_NAMED])}{more}"


def _find(name: str, roles: Roles, version: str) -> VersionRef:
    for ref in roles.refs:
        if ref.version == version:
            return ref
    known = ", ".join(ref.version for ref in roles.refs) or "none"
    raise UnknownVersionError(f"version {version!r} of {name!r} is not loaded; loaded versions: {known}")


def _not_stable(name: str, roles: Roles, version: str) -> VersionRef:
    ref = _find(name, roles, version)
    if ref == roles.stable:
        raise OperationConflictError(f"{version} is the stable version of {name!r}; choose another one")
    if roles.stable is None:
        raise OperationConflictError(f"{name!r} has no stable version yet; swap to a version first")
    return ref


def _without_loaded(roles: Roles, ref: VersionRef) -> Roles:
    """The roles without this version as `loaded`."""
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
                f"the embedding of {item_id!r} has width {len(row)}, the model takes {dim}; encode the image with the "
                "encoder that GET /domains shows",
                field=f"features.{item_id}",
            )
