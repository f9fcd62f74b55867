"""What one replica knows of a journal in Redis: its position, the states there, what it could not read. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import dropwhile, islice

from service.errors import JournalBrokenError
from service.versions.formats import UnreadableError, decode_entry, decode_states, encode_states
from service.versions.journal import Update, fold
from service.versions.state import DomainState, States
from service.versions.stored_journal import FIRST, Content, Found, Position, StoredSnapshot
from service.versions.unread_entries import UnreadEntries

MAX_LINKS = 10_000
"""Links kept in memory. A beginning that ends before them cannot be told from another history."""
RESOLVE = 'POST /admin/journal/resolve with {"keep": "served"}'


class FollowedJournal:
    """Mutable."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.position = Position()
        self.replaces: tuple[str, ...] = ()
        self.states: States = {}
        self.num_entries = 0  # since the last snapshot
        self.epoch = 0
        self.unread = UnreadEntries(stream)
        self.snapshot_fault = ""
        self._missing: dict[str, int] = {}  # by domain, the revision before which entries are missing
        self._links: dict[str, str] = {}  # by entry id, in order
        self._changed: set[str] = set()

    # What is known

    @property
    def is_incomplete(self) -> bool:
        return bool(self.snapshot_fault or self._missing)

    @property
    def problems(self) -> tuple[str, ...]:
        missing = f"the journal {self._stream} in Redis lacks changes of {', '.join(sorted(self._missing))}"
        return (
            f"the snapshot of the journal {self._stream} in Redis cannot be read ({self.snapshot_fault}), so this "
            f"replica serves without the changes in it and refuses changes; restore the key, or send {RESOLVE} to a "
            "replica that serves the right state"
            if self.snapshot_fault
            else "",
            f"{missing}, so this replica serves without them and refuses changes of these domains; send {RESOLVE} to a "
            "replica that serves the right state"
            if self._missing
            else "",
            self.unread.problem,
        )

    @property
    def has_changed(self) -> bool:
        return bool(self._changed)

    @property
    def has_entries(self) -> bool:
        return self.position.id != FIRST

    @property
    def content(self) -> Content:
        revisions = {name: state.revision for name, state in self.states.items()}
        return Content(encode_states(self.states), revisions)

    def take(self) -> Update:
        """The states that have changed since the last call."""
        states = {name: self.states.get(name, DomainState()) for name in self._changed}
        self._changed.clear()
        return Update(self.epoch, states)

    def require_complete(self, domain: str) -> None:
        """Raises JournalBrokenError if changes of a domain would be made on top of a state that lacks others."""
        snapshot, missing, _ = self.problems
        if snapshot:
            raise JournalBrokenError(snapshot)
        if domain in self._missing:
            raise JournalBrokenError(missing)

    # Against what is stored

    def extends(self, found: Found) -> bool:
        """Whether Redis holds a beginning of what is known here, all of which this release can read."""
        if self.unread or self.is_incomplete:
            return False
        if found.standing == "empty":
            return True
        is_known = found.head.id == FIRST or self._links.get(found.head.id) == found.head.link
        return found.head.history == self.position.history and is_known

    def links_after(self, entry_id: str) -> Mapping[str, str]:
        """All of them for an id that has no link."""
        if entry_id not in self._links:
            return self._links
        return dict(islice(dropwhile(lambda each: each[0] != entry_id, self._links.items()), 1, None))

    def difference(self, found: Found) -> str:
        """Describes, for the operator, how what is stored differs from what is followed."""
        own, stored = self.position, found.head
        what = {
            "empty": "it is gone",
            "cut": "its stream is gone",
            "unnamed": f"it has no history, where this replica followed {own.history}",
            "other": f"its history is {stored.history}, where this replica followed {own.history}",
            "apart": f"in the same history {own.history}, it ends with entry {stored.id}, and lacks or differs in "
            f"entry {own.id} of this replica",
        }[found.standing]
        unread = f"; {self.unread.problem}" if self.unread else ""
        return (
            f"the journal {self._stream} in Redis is not the one that this replica followed: {what}; this replica "
            "serves its own state and refuses changes until POST /admin/journal/resolve decides for all replicas: "
            f'{{"keep": "served"}} keeps what this replica serves, {{"keep": "stored"}} what Redis holds{unread}'
        )

    # Changes

    def take_in(self, found: Found) -> None:
        """Fold what was found after the position."""
        before = self.states
        self.unread.keep(each for each in self.unread.ids if each in found.present)
        self.replaces = found.replaces
        entry_id = self.position.id
        if found.snapshot is not None:
            self._take_snapshot(found.snapshot)
            entry_id = found.snapshot.id or entry_id
        for entry_id, fields in found.entries:
            self._take_entry(entry_id, fields, is_stray=entry_id in found.stray)
        self._links.update(found.links)
        while len(self._links) > MAX_LINKS:
            del self._links[next(iter(self._links))]
        self.position = Position(found.head.history, entry_id, self._links.get(entry_id, ""))
        if found.is_last:
            self._align(found.revisions)
        self.unread.log()
        self._changed |= {name for name, state in self.states.items() if before.get(name) is not state}

    def restart(self) -> None:
        """Forget everything, to follow another history."""
        self._changed |= set(self.states)
        self.epoch += 1
        self._forget()

    def read_again(self) -> None:
        """Read the history again from its beginning, on top of the states that are known.

        What comes out differs from them in content, though not in revision.
        """
        self.epoch += 1
        self.position = Position(self.position.history)
        self.snapshot_fault = ""
        self._missing.clear()
        self.unread = UnreadEntries(self._stream)

    def begin(self, position: Position) -> None:
        """Go on with the same states in a new history."""
        states = self.states
        self._forget()
        self.states, self.position = states, position
        self._links[position.id] = position.link

    def _forget(self) -> None:
        self.states = {}
        self.position, self.replaces, self.num_entries = Position(), (), 0
        self.unread = UnreadEntries(self._stream)
        self.snapshot_fault = ""
        self._missing.clear()
        self._links.clear()

    def _take_snapshot(self, snapshot: StoredSnapshot) -> None:
        if not snapshot.id:
            self.snapshot_fault = "its id is not an entry's"
            return
        try:
            self.states, self.num_entries = decode_states(snapshot.states), 0
        except UnreadableError as error:
            self.snapshot_fault = str(error)

    def _take_entry(self, entry_id: str, fields: Mapping[bytes, bytes], *, is_stray: bool) -> None:
        self.num_entries += 1
        try:
            entry = decode_entry(fields.get(b"entry"))
        except UnreadableError as error:
            self.unread.add(entry_id, str(error))
            return
        if is_stray:
            self.unread.add(entry_id, f"revision {entry.revision} of {entry.domain!r} was never given")
            return
        if entry.revision > self._revision(entry.domain) + 1:
            self._note_gap(entry.domain, entry.revision)
        self.states = fold(self.states, entry)

    def _align(self, revisions: Mapping[str, int]) -> None:
        """Count the changes that could not be read, so that later ones have the right revisions."""
        for domain, revision in revisions.items():
            if revision > self._revision(domain):
                self._note_gap(domain, revision + 1)
                if domain in self.states:
                    self.states = {**self.states, domain: replace(self.states[domain], revision=revision)}

    def _note_gap(self, domain: str, revision: int) -> None:
        if self.unread:
            self.unread.domains.add(domain)
        else:
            self._missing[domain] = revision

    def _revision(self, domain: str) -> int:
        return self.states.get(domain, DomainState()).revision
