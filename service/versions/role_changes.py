"""Changes which versions of a domain are served, and in which roles; if a change raises, nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from model.bundle.manifest import check_domain_name
from service.errors import OperationConflictError, RevisionConflictError, UnknownVersionError
from service.observability.metrics import Metrics
from service.versions.change_turns import ChangeTurns
from service.versions.domain_version import DomainVersion
from service.versions.replica import Replica
from service.versions.state import Canary, Roles, RolesEntry, VersionRef

if TYPE_CHECKING:
    from service.versions.version_loader import VersionLoader  # imports torch, which a worker does not


class RoleChanges:
    """Loads, swaps and unloads versions."""

    def __init__(self, replica: Replica, loader: VersionLoader, metrics: Metrics, turns: ChangeTurns) -> None:
        self._replica = replica
        self._loader = loader
        self._metrics = metrics
        self._turns = turns
        self._loading: set[str] = set()

    def is_loading(self, name: str) -> bool:
        return name in self._loading

    async def load(self, name: str, bundle: str, domain: str, *, activates: bool) -> VersionRef:
        """Load a version while others are served, and make it the stable one with `activates`.

        Raises OperationConflictError if another version is loading or in the role `loaded`, BundleError kinds,
        UnknownBundleError and EngineError.
        """
        if self._replica.state(name).roles.loaded is not None:
            raise OperationConflictError(
                f"{name!r} already has a version in the role `loaded`; swap to it, or discard it with DELETE "
                f"/admin/domains/{name}/load"
            )
        check_domain_name(name)
        with self._loading_of(name):
            ref, opened = await asyncio.to_thread(self._loader.sources.open, bundle, domain)
            # Bundles with the same content are one version, whatever their names.
            present = {each.version: each for each in self._replica.state(name).roles.refs}
            ref = present.get(ref.version, ref)
            fresh: dict[VersionRef, DomainVersion] = {}
            if ref not in self._replica.domains.serving(name).versions:
                fresh[ref] = await self._loader.load(ref, opened, name, self._replica.state(name))

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
        self._replica.require(name)
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
        async with self._turns.exclusive(name, f"the change of roles {action!r}"):
            state = self._replica.state(name)
            if not state.roles.refs and fresh is None:
                self._replica.require(name)
            roles = roles_after(state.roles)
            if roles != state.roles:
                await self._replica.commit(RolesEntry(name, state.revision + 1, action, roles), fresh or {})
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
