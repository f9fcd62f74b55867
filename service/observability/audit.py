"""The audit log: who changed what, and whose credentials were refused, as JSON lines in a file of their own.

One thread writes. An administrative call waits for its line; refused credentials, of which an attacker may send many,
do not, and are dropped and counted while too many wait. The file is only ever appended to. It may be moved away at any
time; the next line begins a new one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import AuditLogError

logger = logging.getLogger(__name__)

MAX_WAITING = 1_000
WAIT_S = 5.0
MODE = 0o600


class AuditLog:
    """Appends to a file. Used on the event loop."""

    def __init__(self, path: Path) -> None:
        """Raises AuditLogError if the file cannot be appended to."""
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="audit-log")
        self._num_waiting = 0
        self._num_dropped = 0
        self._problem = ""
        self._is_torn = False  # the file ends in the middle of a line
        try:
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
        if self._num_waiting >= MAX_WAITING:
            self._num_dropped += 1
            return
        self._submit(entry)

    async def write(self, entry: Mapping[str, Any]) -> None:
        """Write a line, and wait for the disk, but not for ever. A failure is reported and does not raise."""
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.wrap_future(self._submit(entry))
        except TimeoutError:
            self._fail("its disk does not answer")

    def close(self) -> None:
        """Write what waits. Called in a thread."""
        self._writer.shutdown()
        os.close(self._descriptor)

    def _submit(self, entry: Mapping[str, Any]) -> Future[None]:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | dict(entry)
        if self._num_dropped:
            line["num_dropped_before"], self._num_dropped = self._num_dropped, 0
        self._num_waiting += 1
        return self._writer.submit(self._append, json.dumps(line, ensure_ascii=False).encode() + b"\n")

    # On the writer's thread.

    def _append(self, line: bytes) -> None:
        try:
            self._reopen_if_moved()
            content = b"\n" + line if self._is_torn else line
            num_written = os.write(self._descriptor, content)
            self._is_torn = num_written < len(content) and (self._is_torn or num_written > 0)
            if num_written < len(content):
                self._fail("its disk is full")
                return
            os.fsync(self._descriptor)
        except OSError as error:
            self._fail(error.strerror or str(error))
        else:
            self._problem = ""
        finally:
            self._num_waiting -= 1

    def _reopen_if_moved(self) -> None:
        own = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
            is_moved = (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino)
        except FileNotFoundError:
            is_moved = True
        if is_moved:
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)

    def _fail(self, reason: str) -> None:
        if not self._problem:
            logger.error("audit_log_failed", extra={"reason": reason})
        self._problem = f"the audit log misses lines: {reason}; free or mend the disk of {self._path.name}"
