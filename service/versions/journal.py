"""The journal of changes: it survives restarts, and replicas share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from service.errors import RevisionConflictError
from service.versions.state import CatalogEntry, DomainState, FeaturesEntry, RolesEntry, States, apply_entry


class Journal(Protocol):
    """An ordered log of entries. The entries of one domain are appended one at a time."""

    @property
    def kind(self) -> str:
        """`file`, `redis` or `none`."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """Faults for the operator: a damaged file, a Redis that does not answer."""
        ...

    async def open(self) -> States:
        """The stored states. Entries that cannot be read are reported in `problems`.

        Raises JournalError for a file that cannot be used at all.
        """
        ...

    async def append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        """Store an entry durably. Raises RevisionConflictError if another was first, JournalError if writing fails."""
        ...

    async def catch_up(self) -> States:
        """States that other replicas have changed since the last call."""
        ...

    def changes(self) -> AsyncIterator[States]:
        """States as other replicas change them, without end."""
        ...

    async def close(self) -> None: ...


class NoJournal:
    """Stores nothing; for a service without administration."""

    kind = "none"
    problems: Sequence[str] = ()

    async def open(self) -> States:
        return {}

    async def append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        pass

    async def catch_up(self) -> States:
        return {}

    async def changes(self) -> AsyncIterator[States]:
        await asyncio.Event().wait()
        yield {}

    async def close(self) -> None:
        pass


def fold(states: Mapping[str, DomainState], entry: RolesEntry | CatalogEntry | FeaturesEntry) -> States:
    """All states after an entry; an entry that is already folded in changes nothing."""
    state = states.get(entry.domain, DomainState())
    if entry.revision <= state.revision:
        return states
    return {**states, entry.domain: apply_entry(state, entry)}


def conflict(entry: RolesEntry | CatalogEntry | FeaturesEntry) -> RevisionConflictError:
    return RevisionConflictError(
        f"the domain {entry.domain!r} was changed by another client meanwhile; get its current state and retry"
    )
