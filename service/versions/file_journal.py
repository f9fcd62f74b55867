"""The journal as a file of JSON lines: an optional snapshot, then one entry per line. One process writes it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from service.errors import JournalError
from service.versions.journal import conflict, fold
from service.versions.state import ENTRIES, STATES, CatalogEntry, FeaturesEntry, RolesEntry, States

logger = logging.getLogger(__name__)

SNAPSHOT = b"snapshot "
ENTRIES_BETWEEN_SNAPSHOTS = 1_000


class FileJournal:
    """Appends durably: an entry takes effect after fsync."""

    kind = "file"

    def __init__(self, path: Path, entries_between_snapshots: int = ENTRIES_BETWEEN_SNAPSHOTS) -> None:
        self._path = path
        self._entries_between_snapshots = entries_between_snapshots
        self._states: States = {}
        self._num_bytes = 0  # of the file's readable part
        self._num_entries = 0
        self._problem = ""
        self._file: BinaryIO | None = None

    @property
    def problems(self) -> list[str]:
        return [self._problem] if self._problem else []

    async def open(self) -> States:
        return await asyncio.to_thread(self._read)

    async def append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        try:
            await asyncio.to_thread(self._append, entry)
        except OSError as error:
            raise JournalError(
                f"the journal {self._path.name} cannot be written ({error.strerror}), so nothing was changed; point "
                "VIP5_JOURNAL to a writable path"
            ) from error

    async def catch_up(self) -> States:
        return {}

    async def changes(self) -> AsyncIterator[States]:
        await asyncio.Event().wait()  # no other process writes
        yield {}

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> States:
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._problem = (
                f"the journal {self._path.name} cannot be read ({error.strerror}); its changes are not served"
            )
            return {}
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                logger.warning("journal_torn", extra={"path": str(self._path), "line": number})
                break
            try:
                self._fold_line(line)
            except ValidationError as error:
                self._problem = (
                    f"line {number} of the journal {self._path.name} is damaged; changes from there on are not served"
                )
                logger.exception("journal_damaged", extra={"reason": str(error)})
                break
            self._num_bytes += len(line)
        return self._states

    def _fold_line(self, line: bytes) -> None:
        if line.startswith(SNAPSHOT):
            self._states, self._num_entries = STATES.validate_json(line[len(SNAPSHOT) :]), 0
        else:
            self._states = fold(self._states, ENTRIES.validate_json(line))
            self._num_entries += 1

    def _append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        states = fold(self._states, entry)
        if states is self._states:
            raise conflict(entry)
        file = self._open_for_append()
        line = ENTRIES.dump_json(entry) + b"\n"
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(self._num_bytes)
            raise
        self._num_bytes += len(line)
        self._states = states
        self._num_entries += 1
        if self._num_entries >= self._entries_between_snapshots:
            self._compact()

    def _open_for_append(self) -> BinaryIO:
        """The locked file; a damaged one is renamed and replaced by a snapshot first."""
        if self._file is not None:
            return self._file
        if self._problem:
            self._path.rename(self._path.with_name(f"{self._path.name}.damaged"))
            logger.warning("journal_set_aside", extra={"path": f"{self._path}.damaged"})
            self._write_snapshot()
            self._problem = ""
        is_new = not self._path.exists()
        file = self._locked(self._path.open("ab"))
        if file.tell() < self._num_bytes or b"\n" in self._path.read_bytes()[self._num_bytes :]:
            file.close()
            raise JournalError(f"another process has written the journal {self._path.name}; restart this one")
        file.truncate(self._num_bytes)
        if is_new:
            _sync_folder(self._path)
        self._file = file
        return file

    def _locked(self, file: BinaryIO) -> BinaryIO:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise JournalError(
                f"another process has locked the journal {self._path.name}; set VIP5_JOURNAL to a different file for "
                "each process, or to redis for replicas that share a journal"
            ) from error
        return file

    def _compact(self) -> None:
        """Replace all entries by a snapshot. On failure they stay, and the next append tries again."""
        try:
            self._write_snapshot()
            if self._file is not None:
                self._file.close()
            self._file = self._locked(self._path.open("ab"))
        except OSError as error:
            logger.warning("journal_not_compacted", extra={"reason": str(error)})

    def _write_snapshot(self) -> None:
        content = SNAPSHOT + STATES.dump_json(dict(self._states)) + b"\n"
        temporary = self._path.with_name(f".{self._path.name}.new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        _sync_folder(self._path)
        self._num_bytes, self._num_entries = len(content), 0


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
