"""What one replica knows of a journal in Redis: its position, the states there, what it could not read. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import dropwhile, islice

from feature_cache.signing import Signer
from service.errors import JournalBrokenError
from service.versions.formats import UnreadableError, decode_entry
from service.versions.journal import Update, fold
from service.versions.signed_chain import SignedChain
from service.versions.state import AnyEntry, DomainState, States
from service.versions.stored_journal import FIRST, Content, Found, Position, StoredSnapshot
from service.versions.unread_entries import UnreadEntries

MAX_LINKS = 10_000
"""Links kept in memory. A beginning that ends before them cannot be told from another history."""
RESOLVE = 'POST /admin/journal/resolve with {"keep": "served"}'


class FollowedJournal:
    """Mutable."""

    def __init__(self, stream: str, signer: Signer | None = None) -> None:
        self._stream = stream
        self._chain = SignedChain(signer)
        self._num_deleted = 0  # entries that have a link and are gone
        self._ahead: set[str] = set()  # domains with a revision in Redis that no signed entry has given
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
        return bool(self.snapshot_fault or self._lacking)

    @property
    def is_signed(self) -> bool:
        return self._chain.is_signed

    @property
    def is_strict(self) -> bool:
        """Whether what is unsigned is refused."""
        return self._chain.is_strict

    @property
    def _lacking(self) -> set[str]:
        return self._missing.keys() | self._ahead

    @property
    def lacking(self) -> frozenset[str]:
        """Domains whose states lack changes that are gone or cannot be read."""
        return frozenset(self._lacking | self.unread.domains)

    @property
    def problems(self) -> tuple[str, ...]:
        missing = f"the journal {self._stream} in Redis lacks changes of {', '.join(sorted(self._lacking))}"
        return (
            f"the snapshot of the journal {self._stream} in Redis cannot be read ({self.snapshot_fault}), so this "
            f"replica serves without the changes in it and refuses changes; restore the key, or send {RESOLVE} to a "
            "replica that serves the right state"
            if self.snapshot_fault
            else "",
            f"{missing}, so this replica serves without them and refuses changes of these domains; send {RESOLVE} to a "
            "replica that serves the right state"
            if self._lacking
            else "",
            self.unread.problem,
        )

    @property
    def has_changed(self) -> bool:
        return bool(self._changed)

    @property
    def has_entries(self) -> bool:
        return self.position.id != FIRST

    def revision(self, domain: str) -> int:
        return self.states.get(domain, DomainState()).revision

    def content(self, history: str) -> Content:
        """The states, as they are stored in a history."""
        revisions = {name: state.revision for name, state in self.states.items()}
        return Content(self._chain.signed_states(history, self.states), revisions)

    def next_entry(self, history: str, entry: AnyEntry) -> bytes:
        """The entry, as it is stored in a history after what is known."""
        return self._chain.signed_entry(history, entry)

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
        if domain in self._lacking:
            raise JournalBrokenError(missing)

    # Against what is stored

    def extends(self, found: Found) -> bool:
        """Whether Redis holds a beginning of what is known here, all of which this release can read."""
        is_read = not self.unread.domains if self.is_strict else not self.unread
        if not is_read or self.is_incomplete:
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
        history, entry_id = found.head.history, self.position.id
        self._count_deleted(found)
        if found.snapshot is not None:
            self._take_snapshot(history, found.snapshot)
            entry_id = found.snapshot.id or entry_id
        elif self.is_strict and found.replaces and not self.has_entries:
            self.snapshot_fault = "it is gone"
        for entry_id, fields in found.entries:
            self._take_entry(history, entry_id, fields, is_stray=entry_id in found.stray)
        self._links.update(found.links)
        if self.is_signed and found.is_last and found.head.id != FIRST:
            entry_id = found.head.id  # signed entries follow the last one, even if that is gone
            self._links[entry_id] = found.head.link
        while len(self._links) > MAX_LINKS:
            del self._links[next(iter(self._links))]
        self.position = Position(history, entry_id, self._links.get(entry_id, ""))
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
        self._forget_faults()

    def begin(self, position: Position) -> None:
        """Go on with the same states in a new history."""
        states, tips = self.states, self._chain.tips
        self._forget()
        self.states, self.position, self._chain.tips = states, position, tips
        self._links[position.id] = position.link

    def _forget(self) -> None:
        self.states = {}
        self.position, self.replaces, self.num_entries = Position(), (), 0
        self._forget_faults()
        self._links.clear()

    def _forget_faults(self) -> None:
        self.unread = UnreadEntries(self._stream)
        self.snapshot_fault = ""
        self._missing.clear()
        self._ahead.clear()
        self._num_deleted = 0
        self._chain.clear()

    def _take_snapshot(self, history: str, snapshot: StoredSnapshot) -> None:
        if not snapshot.id:
            self.snapshot_fault = "its id is not an entry's"
            return
        try:
            self.states, self.num_entries = self._chain.take_states(history, snapshot.states), 0
        except UnreadableError as error:
            self.snapshot_fault = str(error)

    def _take_entry(self, history: str, entry_id: str, fields: Mapping[bytes, bytes], *, is_stray: bool) -> None:
        self.num_entries += 1
        content, place = fields.get(b"entry"), None
        try:
            place = self._chain.take_entry(history, content)
            entry = decode_entry(content)
        except UnreadableError as error:
            self.unread.add(entry_id, str(error))
            if place is not None:
                self._skip(place.domain, place.revision)
            return
        if place is None and is_stray:
            self.unread.add(entry_id, f"revision {entry.revision} of {entry.domain!r} was never given")
            return
        if place is None:
            self._chain.take_unsigned(entry)
        if entry.revision > self.revision(entry.domain) + 1:
            self._note_gap(entry.domain, entry.revision)
        self.states = fold(self.states, entry)

    def _skip(self, domain: str, revision: int) -> None:
        """Count a signed entry that this release cannot read."""
        if revision > self.revision(domain) + 1:
            self._note_gap(domain, revision)
        self.unread.domains.add(domain)
        state = self.states.get(domain, DomainState())
        self.states = {**self.states, domain: replace(state, revision=max(revision, state.revision))}

    def _count_deleted(self, found: Found) -> None:
        """Count new links whose entries are gone."""
        known = {self.position.id, *(entry_id for entry_id, _ in found.entries)}
        if found.snapshot is not None:
            known.add(found.snapshot.id)
        linked = [entry_id for entry_id, _ in found.links]
        if found.is_last:
            linked.append(found.head.id)
        self._num_deleted += len({*linked} - known)

    def _align(self, revisions: Mapping[str, int]) -> None:
        """Count the changes that could not be read, so that later ones have the right revisions.

        Where entries are signed, the revisions, which are not, tell no more than whether an entry that is gone counts.
        """
        if self.is_strict:
            is_short = bool(self._num_deleted)
            self._ahead = {name for name, given in revisions.items() if is_short and given > self.revision(name)}
            return
        for domain, revision in revisions.items():
            if revision > self.revision(domain):
                self._note_gap(domain, revision + 1)
                if domain in self.states:
                    self.states = {**self.states, domain: replace(self.states[domain], revision=revision)}

    def _note_gap(self, domain: str, revision: int) -> None:
        if self.unread and not self.is_strict:
            self.unread.domains.add(domain)
        else:
            self._missing[domain] = revision
