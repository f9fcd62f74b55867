"""The journal's keys in Redis and the atomic steps on them. Knows no states and no entries.

Keys are `vip5:{ID}:journal` (a stream of entries), `vip5:{ID}:links` (a link for each entry to the one before),
`vip5:{ID}:history` (a hash: the random `id` of the history, and the histories that it `replaces`),
`vip5:{ID}:snapshot` (a hash: the `id` of an entry, the `states` after it and their `format`; older entries are trimmed)
and `vip5:{ID}:revisions` (a hash from each domain to the revision of its last entry, for compare-and-set).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha1
from typing import Literal, TypeAlias

from feature_cache.remote.link import Link, Reply
from feature_cache.signing import Signer
from service.versions import redis_scripts
from service.versions.formats import FORMAT
from service.versions.signed_chain import is_signed_by_newer_release, signed_names, trusted_names

FIRST = "0-0"
ENTRIES_PER_READ = 1_000
MAX_DIGITS = 18
"""Of revisions; longer ones are nobody's."""
PARTS = ("journal", "links", "history", "snapshot", "revisions")

Standing: TypeAlias = Literal["same", "empty", "unnamed", "other", "apart", "cut"]
"""How a position stands to what is stored: on the stored history; nothing is stored; what is stored has no history; it
has another one; it has the same without this position; or the stream is gone and the rest is not."""


@dataclass(frozen=True)
class Position:
    """An entry of a history; by default, that of a replica that has read nothing."""

    history: str = ""
    id: str = FIRST
    link: str = ""


@dataclass(frozen=True)
class StoredSnapshot:
    """As stored; `id` is empty if that cannot be read."""

    id: str
    states: bytes


@dataclass(frozen=True)
class Found:
    """What a step found in Redis; after `head`, all of it is empty unless the standing is `same`."""

    standing: Standing
    result: str
    """`appended` or `conflict` after an append; `behind` if a signed entry would have to follow others."""
    head: Position
    replaces: tuple[str, ...]
    snapshot: StoredSnapshot | None = None
    """If entries after the position may have been trimmed."""
    entries: Sequence[tuple[str, Mapping[bytes, bytes]]] = ()
    links: Sequence[tuple[str, str]] = ()
    stray: frozenset[str] = frozenset()
    """Ids of entries with a revision that no append has given."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    """Of the ids that were asked for, those that are still in the stream."""
    is_last: bool = True
    """Whether these entries are the last."""


@dataclass(frozen=True)
class Content:
    """States as they are stored, and the revisions in them."""

    states: bytes
    revisions: Mapping[str, int]

    @property
    def arguments(self) -> tuple[str | int | bytes, ...]:
        return self.states, FORMAT, len(self.revisions), *_flat(self.revisions)


@dataclass(frozen=True)
class NewEntry:
    """`known_revision` is that of the domain at the replica's position; `history` is the one to begin with, if any."""

    history: str
    domain: str
    known_revision: int
    revision: int
    content: bytes
    is_signed: bool


class StoredJournal:
    """All methods raise one of FAULTS."""

    def __init__(self, link: Link, service_id: str, signer: Signer | None = None) -> None:
        self._link = link
        self._signer = signer
        self._prefix = f"vip5:{{{service_id}}}:"
        self._keys = tuple(self._prefix + part for part in PARTS)

    @property
    def stream(self) -> str:
        return self._keys[0]

    async def wait(self, after: str, timeout_ms: int) -> None:
        """Wait for an entry after an id, or for the timeout."""
        await self._link.run("XREAD", "COUNT", 1, "BLOCK", timeout_ms, "STREAMS", self.stream, after)

    async def read(self, position: Position, unread: Iterable[str]) -> Found:
        """The entries after a position."""
        return self._trusted(await self._run(redis_scripts.READ, *_arguments(position, new_history()), *unread))

    async def append(self, position: Position, entry: NewEntry, unread: Iterable[str]) -> Found:
        """Append an entry if the position is on the stored history; also reads the entries after the position.

        The token makes it safe to send the command again after a connection was lost, as redis-py does.
        """
        token = uuid.uuid4().hex
        new = (entry.domain, entry.known_revision, entry.revision, entry.content, token, int(entry.is_signed))
        arguments = (*_arguments(position, entry.history), *new, *unread)
        return self._trusted(await self._run(redis_scripts.APPEND, *arguments))

    async def write_snapshot(self, position: Position, states: bytes) -> None:
        """Store the states at a position, and trim older entries, unless the snapshot is of a newer release."""
        read = await self._older_states(position.history)
        if read is not None:
            await self._run(redis_scripts.SNAPSHOT, *_expected(position), states, FORMAT, read)

    async def restore(
        self,
        expected: Position,
        position: Position,
        content: Content,
        links: Mapping[str, str],
        replaces: Iterable[str],
    ) -> int:
        """Put the states at a position in place of a beginning of the same history.

        1 if it was done, 0 if the head is not the expected one any more, -1 if the snapshot is of a newer release.
        """
        read = await self._older_states(expected.history)
        if read is None:
            return -1
        arguments = (position.history, self._names(position.history, replaces), position.id, *content.arguments)
        return int(await self._run(redis_scripts.RESTORE, *_expected(expected), read, *arguments, *_flat(links)))

    async def begin(
        self, expected: Position | None, history: str, content: Content, replaces: Iterable[str]
    ) -> Position | None:
        """Begin a new history with these states, and keep what was stored under names with `before` in them.

        Returns its first position, or None if the head is not the expected one any more.
        """
        check = ("0", "", "", "") if expected is None else ("1", *_expected(expected))
        kept = [f"{self._prefix}before:{history}:{part}" for part in PARTS]
        reply = await self._run(
            redis_scripts.BEGIN, *check, history, self._names(history, replaces), *content.arguments, more_keys=kept
        )
        return None if reply is None else Position(history, *map(_text, reply))

    async def rename(self, expected: Position, replaces: Iterable[str]) -> bool:
        """Make what is stored a new history; false if its head is not the expected one any more."""
        history = new_history()
        arguments = (*_expected(expected), history, self._names(history, replaces))
        return bool(await self._run(redis_scripts.RENAME, *arguments))

    async def _older_states(self, history: str) -> str | None:
        """SHA-1 of stored states that are of no newer release, whatever their format says, which is not signed.

        None if they are of a newer release. Empty without a secret: then the format decides.
        """
        if self._signer is None or self._signer.accepts_unsigned:
            return ""
        states: bytes = await self._link.run("HGET", self._keys[PARTS.index("snapshot")], "states") or b""
        if is_signed_by_newer_release(self._signer, history, states):
            return None
        return sha1(states, usedforsecurity=False).hexdigest()  # as in Redis's scripts

    def _names(self, history: str, replaces: Iterable[str]) -> str:
        return json.dumps(signed_names(self._signer, history, replaces))

    def _trusted(self, reply: Reply) -> Found:
        found = _found(reply)
        return replace(found, replaces=trusted_names(self._signer, found.head.history, found.replaces))

    async def _run(self, script: str, *arguments: str | int | bytes, more_keys: Sequence[str] = ()) -> Reply:
        keys = (*self._keys, *more_keys)
        return await self._link.run("EVAL", script, len(keys), *keys, *arguments)


def _arguments(position: Position, history: str) -> tuple[str | int, ...]:
    return (*_expected(position), history, ENTRIES_PER_READ)


def _expected(position: Position) -> tuple[str, str, str]:
    return position.history, position.id, position.link


def new_history() -> str:
    return uuid.uuid4().hex


def _found(reply: Reply) -> Found:
    standing, result, history, replaces, head_id, head_link, *content = reply
    head = Position(_text(history), _text(head_id), _text(head_link))
    found = Found(_text(standing), _text(result), head, _replaced(replaces))  # type: ignore[arg-type]
    if not content:
        return found
    snapshot, entries, links, revisions, present, is_last = content
    return Found(
        found.standing,
        found.result,
        head,
        found.replaces,
        snapshot=None if snapshot is None else StoredSnapshot(_text(snapshot[0]), snapshot[1]),
        entries=[(_text(entry_id), _pairs(fields)) for entry_id, fields in entries],
        links=[(_text(entry_id), _text(fields[1])) for entry_id, fields in links],
        stray=frozenset(_text(entry_id) for entry_id, fields in links if _pairs(fields).get(b"is_stray") == b"1"),
        revisions={
            _text(domain): int(number)
            for domain, number in _pairs(revisions).items()
            if number.isdigit() and len(number) <= MAX_DIGITS
        },
        present=frozenset(map(_text, present)),
        is_last=bool(is_last),
    )


def _flat(mapping: Mapping[str, str] | Mapping[str, int]) -> Iterator[str | int]:
    for key, value in mapping.items():
        yield from (key, value)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _replaced(content: bytes) -> tuple[str, ...]:
    try:
        found = json.loads(content or b"[]")
    except ValueError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _text(content: bytes) -> str:
    return content.decode(errors="replace")
