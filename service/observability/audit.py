"""The audit log: who changed what, and whose credentials were refused, as JSON lines in a file of their own.

One thread writes all lines that wait, with one flush. An administrative call waits for its line; refused credentials,
of which an attacker may send many, do not, and are dropped and counted while too many wait. The file is only ever
appended to. It may be moved away at any time; the next line begins a new one.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import AuditLogError

logger = logging.getLogger(__name__)

MAX_WAITING = 1_000
WAIT_S = 5.0
"""Longest wait of an administrative call, and of the end of the process, for a disk that does not answer."""
MODE = 0o600
NO_ANSWER = "its disk does not answer"


@dataclass(frozen=True, eq=False)
class _Line:
    content: bytes
    num_dropped_before: int
    written: Future[None] = field(default_factory=Future)
    """Done when writing was tried."""


class AuditLog:
    """Appends to a file. Used on the event loop."""

    def __init__(self, path: Path) -> None:
        """Raises AuditLogError if the file cannot be appended to."""
        self._path = path
        self._changed = threading.Condition()
        self._waiting: list[_Line] = []
        self._num_unwritten = 0  # lines that wait, and those that are being written
        self._num_dropped = 0
        self._is_closed = False
        self._is_stuck = False
        self._problem = ""
        self._thread: threading.Thread | None = None
        try:
            self._is_torn = _ends_within_a_line(path)
            self._descriptor = self._open()
        except OSError as error:
            raise AuditLogError(
                f"the audit log {path} cannot be written: {error.strerror}; choose another VIP5_AUDIT_LOG, or let the "
                "service's user write it"
            ) from error

    @property
    def problems(self) -> Sequence[str]:
        """Why lines are missing, if some are."""
        return (self._problem,) if self._problem else ()

    def note(self, entry: Mapping[str, Any]) -> None:
        """Write a line later; dropped and counted while too many wait."""
        with self._changed:
            if self._num_unwritten >= MAX_WAITING:
                self._num_dropped += 1
                return
        self._submit(entry)

    async def write(self, entry: Mapping[str, Any]) -> None:
        """Write a line, and wait for the disk, but not for ever. A failure is reported and does not raise.

        The line is written even if the wait ends early. While the disk is known not to answer, nothing waits.
        """
        written = asyncio.wrap_future(self._submit(entry))
        if self._is_stuck:
            return
        await asyncio.wait([written], timeout=WAIT_S)  # which does not cancel it
        if not written.done():
            self._is_stuck = True
            self._fail(NO_ANSWER)

    def close(self) -> None:
        """Write what waits, unless the disk does not answer. Called in a thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is None:
            os.close(self._descriptor)
            return
        self._thread.join(WAIT_S)
        if self._thread.is_alive():
            self._fail(NO_ANSWER)

    def _submit(self, entry: Mapping[str, Any]) -> Future[None]:
        content = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | dict(entry)
        with self._changed:
            num_dropped, self._num_dropped = self._num_dropped, 0
            if num_dropped:
                content["num_dropped_before"] = num_dropped
            # A lone surrogate becomes its escape, which JSON has too.
            text = json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")
            line = _Line(text + b"\n", num_dropped)
            self._waiting.append(line)
            self._num_unwritten += 1
            if self._thread is None:
                # Not an executor's thread, which would keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
                self._thread.start()
            self._changed.notify()
        return line.written

    # On the writer's thread.

    def _run(self) -> None:
        while lines := self._take():
            is_written = self._append(b"".join(line.content for line in lines))
            with self._changed:
                self._num_unwritten -= len(lines)
                if not is_written:
                    self._num_dropped += sum(1 + line.num_dropped_before for line in lines)
            for line in lines:
                line.written.set_result(None)
        os.close(self._descriptor)

    def _take(self) -> list[_Line]:
        """All lines that wait; empty once the log is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            lines, self._waiting = self._waiting, []
            return lines

    def _append(self, content: bytes) -> bool:
        try:
            self._reopen_if_moved()
            if self._is_torn:
                content = b"\n" + content
            num_written = os.write(self._descriptor, content)
            if num_written < len(content):
                self._is_torn = self._is_torn or num_written > 0
                self._fail("its disk is full")
                return False
            self._is_torn = False
            os.fsync(self._descriptor)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return False
        finally:
            self._is_stuck = False
        self._problem = ""
        return True

    def _reopen_if_moved(self) -> None:
        own = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
            is_moved = (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino)
        except FileNotFoundError:
            is_moved = True
        if is_moved:
            is_torn, fresh = _ends_within_a_line(self._path), self._open()
            os.close(self._descriptor)
            self._descriptor, self._is_torn = fresh, is_torn

    def _open(self) -> int:
        # Without O_NONBLOCK, a pipe would be waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, MODE)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return descriptor

    def _fail(self, reason: str) -> None:
        if not self._problem:
            logger.error("audit_log_failed", extra={"reason": reason})
        self._problem = f"the audit log misses lines: {reason}; free or mend the disk of {self._path.name}"


def _ends_within_a_line(path: Path) -> bool:
    """Whether a process ended before its last line did. A file that may only be written is taken for whole."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            if not file.tell():
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False
