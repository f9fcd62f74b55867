"""A replica that holds some of many domains, and loads another one when it is told to.

What is served of a domain is what the journal says, and before it says anything about versions, what the directory
says. What the journal says of a domain that is not held is kept in mind: who loads it later serves its latest state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from model.errors import UnknownDomainError
from service.errors import NotReadyError, OperationConflictError
from service.versions.domain_version import DomainVersion
from service.versions.domains import Serving
from service.versions.replica import Replica
from service.versions.state import AnyEntry, DomainState, Roles, VersionRef

RETRY_AFTER_S = 5


class HeldDomains(Replica):
    """Serves the domains that it holds: none at the start, not even those of its own bundle."""

    directory: Mapping[str, VersionRef] = {}
    """All domains that can be held, and what is served of each; replaced as a whole."""
    _held: frozenset[str] = frozenset()

    async def start(self, own: Iterable[DomainVersion]) -> None:
        """Read the journal, and let go of what the own bundle brought into the engine."""
        versions = list(own)
        await super().start(versions)
        for version in versions:
            await self.let_go(version.domain.name)

    @property
    def held(self) -> frozenset[str]:
        return self._held

    async def hold(self, name: str) -> None:
        """Serve a domain from now on, at its latest state; what is served so already stays as it is.

        Raises UnknownDomainError for a domain that does not exist or was unloaded on all replicas, and NotReadyError if
        no version of it can be loaded.
        """
        async with self.lock(name):
            known = self.state(name)
            state = self._with_own_bundle(name, known)
            if not state.roles.refs:
                raise UnknownDomainError(f"the domain {name!r} is not served", field="domain")
            self._held |= {name}
            await self._try_to_reconcile(name, state)
            if self.domains.serving(name).stable is None:
                self._held -= {name}
                self._states[name] = known  # with the versions that the next try loads
                reason = self.progress.faults.get(name, "it has no stable version")
                raise NotReadyError(
                    f"the domain {name!r} could not be loaded: {reason}; retry later", retry_after_s=RETRY_AFTER_S
                )

    async def let_go(self, name: str) -> None:
        """Serve a domain no more; running requests complete, and its state is kept in mind."""
        async with self.lock(name):
            self._held -= {name}
            self._forget_problem(name)
            before = self.domains.serving(name)
            self._publish(name, Serving(Roles(), {}))
            await self._discard(before.versions.values(), kept=())
            await self._followers.published(name)

    async def commit(self, entry: AnyEntry, fresh: Mapping[VersionRef, DomainVersion] | None = None) -> DomainState:
        """As Replica.commit. Raises OperationConflictError for a domain that is not held."""
        if entry.domain not in self._held:
            raise OperationConflictError(
                f"{entry.domain!r} is not among the domains that this service has been given; add it to them first"
            )
        return await super().commit(entry, fresh)

    def _with_own_bundle(self, name: str, state: DomainState) -> DomainState:
        if state.has_roles:
            return super()._with_own_bundle(name, state)
        return replace(state, roles=Roles(stable=self.directory.get(name)))

    async def _try_to_reconcile(self, name: str, state: DomainState) -> None:
        if name in self._held:
            await super()._try_to_reconcile(name, state)
        else:
            self._states[name] = state
