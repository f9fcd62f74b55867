"""Where changes of what is served are kept, so that a restart finds them and other replicas hear of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from service.errors import RevisionConflictError
from service.versions.state import CatalogEntry, DomainState, FeaturesEntry, RolesEntry, States, follow


class Journal(Protocol):
    """Entries in their order. One task appends at a time for each domain."""

    @property
    def kind(self) -> str:
        """`file`, `redis` or `none`."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What an operator has to know of: damage, a Redis that does not answer."""
        ...

    async def open(self) -> States:
        """The states that were kept. What cannot be read is a problem and no error."""
        ...

    async def append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        """Keep an entry for good. Raises RevisionConflictError if another came first, JournalError if that fails."""
        ...

    async def catch_up(self) -> States:
        """States that were changed elsewhere since this was asked last."""
        ...

    def news(self) -> AsyncIterator[States]:
        """What `catch_up` gives, as it comes, without end."""
        ...

    async def close(self) -> None: ...


class NoJournal:
    """Keeps nothing; for a service that cannot be changed."""

    kind = "none"
    problems: Sequence[str] = ()

    async def open(self) -> States:
        return {}

    async def append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        pass

    async def catch_up(self) -> States:
        return {}

    async def news(self) -> AsyncIterator[States]:
        await asyncio.Event().wait()
        yield {}

    async def close(self) -> None:
        pass


def followed(states: Mapping[str, DomainState], entry: RolesEntry | CatalogEntry | FeaturesEntry) -> States:
    """All states after an entry; one that was there before changes nothing."""
    state = states.get(entry.domain, DomainState())
    if entry.revision <= state.revision:
        return states
    return {**states, entry.domain: follow(state, entry)}


def conflict(entry: RolesEntry | CatalogEntry | FeaturesEntry) -> RevisionConflictError:
    return RevisionConflictError(
        f"the domain {entry.domain!r} was changed by somebody else meanwhile; look at it anew and try again"
    )
