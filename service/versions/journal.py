"""The journal of changes: it survives restarts, and replicas share it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

from service.errors import OperationConflictError, RevisionConflictError
from service.versions.state import AnyEntry, DomainState, States, apply_entry

Kept: TypeAlias = Literal["served", "stored"]
"""Which of two histories goes on: the one that a replica serves, or the one that is stored."""


@dataclass(frozen=True)
class Update:
    """States that have changed. Those of a later epoch replace all states before, whatever their revisions are."""

    epoch: int = 0
    states: States = field(default_factory=dict)
    read_at: float = 0.0
    """When the read that found them began, by the monotonic clock."""


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

    @property
    def is_broken(self) -> bool:
        """Whether the journal is not the one that was followed, or lacks entries: `resolve` ends that."""
        ...

    @property
    def num_unread(self) -> int:
        """Number of entries that cannot be read, which are kept."""
        ...

    @property
    def epoch(self) -> int:
        """How often the states were replaced by those of another history."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other replicas write it."""
        ...

    @property
    def history(self) -> str:
        """The identity of what is followed; empty if nothing is, or if the journal has none."""
        ...

    @property
    def revisions(self) -> Mapping[str, int]:
        """The last revision of each domain that was read."""
        ...

    @property
    def lacking(self) -> Collection[str]:
        """Domains with changes that cannot be read or are gone, so that their states are served without them."""
        ...

    @property
    def idle_at(self) -> float:
        """When the last read that found nothing new began, by the monotonic clock; now if nobody else writes it."""
        ...

    async def open(self) -> States:
        """The stored states. Entries that cannot be read are reported in `problems`.

        Raises JournalError for a file that cannot be used at all.
        """
        ...

    async def append(self, entry: AnyEntry) -> None:
        """Store an entry durably. Raises RevisionConflictError if another was first, JournalError if writing fails."""
        ...

    async def catch_up(self) -> Update:
        """States that other replicas have changed since the last call. Raises JournalError."""
        ...

    def changes(self) -> AsyncIterator[Update]:
        """States as other replicas change them, without end."""
        ...

    async def resolve(self, keep: Kept, /) -> None:
        """Begin a new history, which all replicas follow. Raises OperationConflictError and JournalError."""
        ...

    async def close(self) -> None: ...


class OwnJournal:
    """What is common to journals that nobody else writes."""

    is_shared = False
    history = ""
    revisions: Mapping[str, int] = MappingProxyType({})
    lacking: Collection[str] = ()

    @property
    def idle_at(self) -> float:
        return time.monotonic()


class NoJournal(OwnJournal):
    """Stores nothing; for a service without administration."""

    kind = "none"
    problems: Sequence[str] = ()
    is_broken = False
    num_unread = 0
    epoch = 0

    async def open(self) -> States:
        return {}

    async def append(self, entry: AnyEntry) -> None:
        pass

    async def catch_up(self) -> Update:
        return Update()

    async def changes(self) -> AsyncIterator[Update]:
        await asyncio.Event().wait()
        yield Update()

    async def resolve(self, _: Kept) -> None:
        raise nothing_to_resolve(self.kind)

    async def close(self) -> None:
        pass


def fold(states: Mapping[str, DomainState], entry: AnyEntry) -> States:
    """All states after an entry; an entry that is already folded in changes nothing."""
    state = states.get(entry.domain, DomainState())
    if entry.revision <= state.revision:
        return states
    return {**states, entry.domain: apply_entry(state, entry)}


def nothing_to_resolve(kind: str) -> OperationConflictError:
    return OperationConflictError(
        "a journal has to be decided on if it is not the one that was followed, and this one is (this journal is of "
        f"the kind {kind!r}); GET /admin/domains lists its problems"
    )


def conflict(entry: AnyEntry) -> RevisionConflictError:
    return RevisionConflictError(
        f"the domain {entry.domain!r} was changed by another client meanwhile; get its current state and retry"
    )
