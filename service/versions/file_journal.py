"""The journal as a file of JSON lines: an optional snapshot, then one entry per line. One process writes it.

Entries apply in the file's order. A line that cannot be read is reported, skipped and left where it is.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from service.errors import JournalError, OperationConflictError
from service.versions.append_file import AppendFile
from service.versions.formats import UnreadableError, decode_entry, decode_states, encode_entry, encode_states
from service.versions.journal import Kept, OwnJournal, Update, conflict, fold, nothing_to_resolve
from service.versions.state import AnyEntry, DomainState, States

logger = logging.getLogger(__name__)

SNAPSHOT = b"snapshot "
ENTRY = b'{"domain":'
"""Begins every entry."""
ENTRIES_BETWEEN_SNAPSHOTS = 1_000
MAX_NAMED_LINES = 5
WATCH_S = 5.0
"""Interval between looks at what other programs have done to the file."""


class FileJournal(OwnJournal):
    """Appends durably: an entry takes effect after fsync."""

    kind = "file"
    epoch = 0

    def __init__(
        self, path: Path, entries_between_snapshots: int = ENTRIES_BETWEEN_SNAPSHOTS, *, is_written: bool = True
    ) -> None:
        """Without `is_written`, the file is only read, and may be where this process cannot write."""
        self._file = AppendFile(path, is_written=is_written)
        self._name = path.name
        self._entries_between_snapshots = entries_between_snapshots
        self._lock = threading.Lock()  # changes of different domains are appended by different threads
        self._states: States = {}
        self._num_entries = 0
        self._damaged: dict[int, str] = {}  # why, by line number
        self._is_terminated = True  # the last line ends in a newline
        self._failure = ""  # of the last append
        self._compaction_failure = ""
        self._change = ""  # by another program

    @property
    def problems(self) -> list[str]:
        every = (self._damage(), self._change, self._file.problem or self._failure, self._compaction_failure)
        return [problem for problem in every if problem]

    @property
    def is_broken(self) -> bool:
        return bool(self._change)

    @property
    def num_unread(self) -> int:
        return len(self._damaged)

    def check(self) -> None:
        """Raises JournalError if the file cannot be read, or cannot be written although it will have to be."""
        self._file.check()

    async def open(self) -> States:
        """Raises JournalError if the file cannot be used, or the line that all later ones build on is damaged."""
        return await asyncio.to_thread(self._read)

    async def append(self, entry: AnyEntry) -> None:
        await asyncio.to_thread(self._append, entry)

    async def catch_up(self) -> Update:
        return Update()

    async def changes(self) -> AsyncIterator[Update]:
        """Empty ones, while another program has changed or removed the file, though none may."""
        while True:
            await asyncio.sleep(WATCH_S)
            if await asyncio.to_thread(self._watch):
                yield Update()

    async def resolve(self, keep: Kept) -> None:
        """Write what is served into a new file, if another program has changed or removed the former one."""
        await asyncio.to_thread(self._resolve, keep)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _read(self) -> States:
        *lines, last = self._file.read().split(b"\n")
        for number, line in enumerate(lines, start=1):
            self._read_line(number, line)
        if _is_torn(last):
            logger.warning("journal_torn", extra={"path": str(self._file.path), "line": len(lines) + 1})
            self._file.keep(sum(len(line) + 1 for line in lines))
        elif last:
            self._read_line(len(lines) + 1, last)
            self._is_terminated = False
        if self._damaged:
            reasons = {"reason": self._damage(), "lines": dict(islice(self._damaged.items(), MAX_NAMED_LINES))}
            logger.error("journal_damaged", extra={"path": str(self._file.path), **reasons})
        return self._states

    def _read_line(self, number: int, line: bytes) -> None:
        if not line.strip():
            return
        try:
            if line.startswith(SNAPSHOT):
                self._states, self._num_entries = decode_states(line[len(SNAPSHOT) :]), 0
            else:
                self._states = _applied(self._states, decode_entry(line))
                self._num_entries += 1
        except UnreadableError as error:
            is_first = not self._states and not self._damaged
            if line.startswith(SNAPSHOT) or (is_first and not line.startswith(ENTRY)):
                raise JournalError(
                    f"line {number} of the journal {self._file.path} is damaged or not a journal's, and it may contain "
                    f"all earlier changes, such as which items are out of stock ({error}); restore the file from a "
                    "copy, start a release that reads it, or move it away to start without its changes"
                ) from error
            self._damaged[number] = str(error)

    def _damage(self) -> str:
        if not self._damaged:
            return ""
        named = ", ".join(map(str, list(self._damaged)[:MAX_NAMED_LINES]))
        more = f" and {len(self._damaged) - MAX_NAMED_LINES} more" if len(self._damaged) > MAX_NAMED_LINES else ""
        return (
            f"the journal {self._name} has lines that cannot be read, whose changes are not served: {named}{more}; "
            "stop the service, and repair or remove them"
        )

    def _append(self, entry: AnyEntry) -> None:
        with self._lock:
            states = fold(self._states, entry)
            if states is self._states:
                raise conflict(entry)
            self._write((b"" if self._is_terminated else b"\n") + encode_entry(entry) + b"\n")
            self._states, self._is_terminated = states, True
            self._num_entries += 1
            # A damaged line stays in the file until somebody has looked at it.
            if self._num_entries >= self._entries_between_snapshots and not self._damaged:
                self._compact()

    def _write(self, content: bytes) -> None:
        try:
            self._file.append(content)
        except OSError as error:
            self._failure = (
                f"the journal {self._name} cannot be written ({error.strerror}), so nothing was changed; free space on "
                "its disk, or set VIP5_JOURNAL to a file that can be written"
            )
            raise JournalError(self._failure) from error
        except JournalError as error:
            self._failure = str(error)
            if self._failure == self._file.change():
                self._look()
                self._failure = ""
            raise
        self._failure = self._change = ""

    def _watch(self) -> bool:
        """Whether the file is not the one that was followed."""
        with self._lock:
            self._look()
            return self.is_broken

    def _look(self) -> None:
        change = self._file.change()
        if change and change != self._change:
            logger.error("journal_changed_outside", extra={"path": str(self._file.path), "reason": change})
        self._change = change

    def _resolve(self, keep: Kept) -> None:
        with self._lock:
            self._look()
            if not self._change:
                raise nothing_to_resolve(self.kind)
            if keep == "stored":
                raise OperationConflictError(
                    f"restart the service to serve what the journal {self._name} contains now; a running service can "
                    'only write what it serves, with {"keep": "served"}'
                )
            try:
                kept = self._file.begin(SNAPSHOT + encode_states(self._states) + b"\n")
            except OSError as error:
                raise JournalError(
                    f"the journal {self._name} cannot be written ({error.strerror}), so nothing was changed; make its "
                    "folder writable and free space on its disk"
                ) from error
            self._change = self._failure = self._compaction_failure = ""
            self._damaged, self._num_entries, self._is_terminated = {}, 0, True
            extra = {"keep": keep, "path": str(self._file.path), "former": kept and str(kept)}
            logger.warning("journal_resolved", extra=extra)

    def _compact(self) -> None:
        """Replace all entries by a snapshot. On failure they stay, and the next append tries again."""
        try:
            self._file.replace(SNAPSHOT + encode_states(self._states) + b"\n")
        except (OSError, JournalError) as error:
            self._compaction_failure = (
                f"the journal {self._name} cannot be shortened ({error}), so it grows with every change; make its "
                "folder writable and free space on its disk"
            )
            logger.warning("journal_not_compacted", extra={"reason": str(error)})
        else:
            self._compaction_failure, self._num_entries = "", 0

    def _close(self) -> None:
        with self._lock:
            self._file.close()


def _applied(states: States, entry: AnyEntry) -> States:
    """All states after an entry of the file.

    Its revision is taken already where a line before it could not be read when it was written, and now can.
    """
    revision = states.get(entry.domain, DomainState()).revision
    return fold(states, replace(entry, revision=max(entry.revision, revision + 1)))


def _is_torn(last: bytes) -> bool:
    """Whether the end of the file is a part of an entry whose write did not complete, so that it was never answered."""
    return bool(last) and (last.startswith(ENTRY) or ENTRY.startswith(last))
