"""A file that only grows: what `append` returned for is on the disk, and what it raised for is not. Knows no format.

Writes are unbuffered: a failed flush of a buffer keeps its bytes, and a later flush writes them after all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import uuid
from pathlib import Path
from typing import TypeAlias

from service.errors import JournalError

READ_BYTES = 1 << 20
MODE = 0o666
"""Permissions of a new file, less the process's umask."""
SETTING = "VIP5_JOURNAL"
"""The setting that names the journal of changes."""

KEEP_SERVED = '{"keep": "served"}'

Identity: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of the last modification."""


class AppendFile:
    """One process writes the file, which it locks at its first `append`. Not thread-safe."""

    def __init__(self, path: Path, *, is_written: bool, setting: str = SETTING, mode: int = MODE) -> None:
        """Without `is_written`, the file is only read. A symbolic link stays one: the file that it names is written.

        Messages name `setting`, with which an operator chooses the file. A new file has the permissions `mode`.
        """
        self.path = Path(os.path.realpath(path))
        self._is_written = is_written
        self._setting = setting
        self._mode = mode
        self._fd: int | None = None
        self._seen: Identity | None = None  # as it was read; None if there was no file
        self._length = 0  # of the good part
        self._has_rest = False  # bytes after the good part, which have to be removed before the next write
        self._must_sync_folder = False
        self._rest_error = ""

    @property
    def problem(self) -> str:
        """Why every append is refused at present; empty if none is."""
        if not self._rest_error:
            return ""
        return (
            f"the rest of a failed write to the journal {self.path.name} cannot be removed ({self._rest_error}); "
            "changes are refused until it can be, and the change that failed may come back at a restart before that"
        )

    def check(self) -> None:
        """Raises JournalError if the file cannot be read, or cannot be written although it will have to be."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                kind = "folder" if self.path.is_dir() else "device or pipe"
                raise JournalError(f"the journal {self.path} is a {kind}, not a file; set {self._setting} to a file")
            os.close(os.open(self.path, self._flags))
        except FileNotFoundError:
            self._check_folder()
        except OSError as error:
            use = "read and written" if self._is_written else "read"
            raise JournalError(
                f"the journal {self.path} cannot be {use} ({error.strerror}), so changes would be lost; give this "
                f"user the right to it, or set {self._setting} to another file"
            ) from error

    def read(self) -> bytes:
        """The whole content; empty if there is no file. Raises JournalError as `check` does."""
        self.check()
        try:
            content, self._seen = _content(self.path)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise JournalError(
                f"the journal {self.path} cannot be read ({error.strerror}), so its changes would be lost; check the "
                "disk, or restore the file from a copy"
            ) from error
        self._length = len(content)
        return content

    def keep(self, length: int) -> None:
        """Remove what was read after this length before the next write."""
        self._has_rest = length < self._length
        self._length = length

    def append(self, content: bytes) -> None:
        """Raises OSError or JournalError if nothing was written.

        The JournalError says so where that is not certain: what was written could not be removed either.
        """
        fd = self._ready()
        self._has_rest = True
        try:
            _write_all(fd, content)
            os.fsync(fd)
        except OSError as error:
            self._undo(fd, error)
            raise
        self._length += len(content)
        self._has_rest = False

    def replace(self, content: bytes) -> None:
        """Replace the content at once. If it raises OSError or JournalError, one of the two stands, as a whole."""
        former = self._ready()
        self._put(content, stat.S_IMODE(os.fstat(former).st_mode))
        with contextlib.suppress(OSError):
            os.close(former)
        self._sync_folder()

    def change(self) -> str:
        """What other programs have done to the file since it was read and written here; empty if nothing."""
        try:
            self._check_as_followed()
        except OSError as error:
            return f"the journal {self.path.name} cannot be looked at ({error.strerror}); check its disk"
        except JournalError as error:
            return str(error)
        return ""

    def begin(self, content: bytes) -> Path | None:
        """Write a new file in place of whatever is there, which is kept under the name that is returned.

        Raises OSError or JournalError if the former one stands.
        """
        with contextlib.ExitStack() as stack:
            kept: Path | None = None
            if self.path.exists():
                if self._fd is None or not self._is_in_place(self._fd):
                    there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                    stack.callback(os.close, there)
                    self._lock(there)
                kept = self.path.with_name(f"{self.path.name}.before-{uuid.uuid4().hex}")
                os.link(self.path, kept)
            former = self._fd
            self._put(content, None)
            if former is not None:
                stack.callback(_close, former)
        self._has_rest, self._rest_error = False, ""
        self._sync_folder()
        return kept

    def _put(self, content: bytes, mode: int | None) -> None:
        """Make a file with this content the one that is followed, at once."""
        temporary = self.path.with_name(f".{self.path.name}.new")
        fd = os.open(temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, self._mode)
        try:
            # Locked before it has the name, so that no other process can write it first.
            self._lock(fd)
            if mode is not None:
                os.fchmod(fd, mode)
            _write_all(fd, content)
            os.fsync(fd)
            os.rename(temporary, self.path)  # noqa: PTH104  # all system calls of this file are `os` functions
        except (OSError, JournalError):
            is_renamed = False  # a network's file system may have renamed it and say that it has not
            with contextlib.suppress(OSError):
                is_renamed = self._is_in_place(fd)
            if not is_renamed:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
                with contextlib.suppress(OSError):
                    os.close(fd)
                raise
        self._fd, self._length = fd, len(content)
        self._must_sync_folder = True

    def close(self) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            if self._has_rest:
                with contextlib.suppress(OSError):
                    self._cut(fd)
        finally:
            os.close(fd)

    @property
    def _flags(self) -> int:
        access = os.O_RDWR | os.O_APPEND if self._is_written else os.O_RDONLY
        return access | os.O_CLOEXEC

    def _check_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise JournalError(
                f"the journal {self.path} cannot be created, because the folder {folder} does not exist; create it, "
                f"or set {self._setting} to a file in another folder"
            )
        if self._is_written and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise JournalError(
                f"the journal {self.path} cannot be created, because the folder {folder} is read-only for this user; "
                f"set {self._setting} to a file in a folder that can be written"
            )

    def _ready(self) -> int:
        """The locked file with its good part and nothing else."""
        if self._fd is None:
            self._fd = self._open()
        fd = self._fd
        self._check_unchanged(fd)
        if self._must_sync_folder:
            self._sync_folder()
        if self._has_rest:
            try:
                self._cut(fd)
            except OSError as error:
                self._rest_error = error.strerror or str(error)
                raise
        return fd

    def _open(self) -> int:
        flags = self._flags if self._seen is not None else self._flags | os.O_CREAT
        fd = os.open(self.path, flags, self._mode)
        try:
            self._lock(fd)
            self._check_as_read(fd)
        except (OSError, JournalError):
            os.close(fd)
            raise
        self._must_sync_folder = self._seen is None
        return fd

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                f"another process has locked the journal {self.path.name}; set {self._setting} to a different file for "
                "each process, or to redis for replicas that share a journal"
            ) from error

    def _check_as_read(self, fd: int) -> None:
        is_same = os.fstat(fd).st_size == 0 if self._seen is None else _identity(os.fstat(fd)) == self._seen
        if not is_same:
            raise JournalError(self._changed)

    def _check_unchanged(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        is_long_enough = size >= self._length if self._has_rest else size == self._length
        if not is_long_enough or not self._is_in_place(fd):
            raise JournalError(self._changed if self.path.exists() else self._gone)

    def _check_as_followed(self) -> None:
        """Raises JournalError if the file is not as it was left."""
        if self._fd is not None:
            self._check_unchanged(self._fd)
            return
        try:
            there = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            if self._seen is not None:
                raise JournalError(self._gone) from None
            return
        if there.st_size if self._seen is None else _identity(there) != self._seen:
            raise JournalError(self._changed)

    @property
    def _gone(self) -> str:
        return (
            f"another program has moved or changed the journal {self.path.name}: it is gone; this process serves what "
            "it contained, a restart would not, and changes are refused; put it back, or send POST "
            f"/admin/journal/resolve with {KEEP_SERVED} to write what is served into a new file"
        )

    @property
    def _changed(self) -> str:
        who = "another process has written" if self._fd is None else "another program has moved or changed"
        return (
            f"{who} the journal {self.path.name}, so changes are refused; put it back, restart the service to serve "
            f"what the file contains now, or send POST /admin/journal/resolve with {KEEP_SERVED} to write what this "
            "process serves into a new file"
        )

    def _is_in_place(self, fd: int) -> bool:
        """Whether the path still leads to the open file."""
        try:
            there = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(fd), there)

    def _undo(self, fd: int, cause: OSError) -> None:
        """Remove what a failed write left. Raises JournalError if that fails."""
        try:
            os.ftruncate(fd, self._length)
        except OSError as error:
            self._rest_error = error.strerror or str(error)
            raise JournalError(
                f"the journal {self.path.name} cannot be written ({cause.strerror}), nor can the rest of the failed "
                f"write be removed ({self._rest_error}), so the change is not made but may come back at a restart; "
                "repair the disk and check the domain's current state before you retry"
            ) from cause
        with contextlib.suppress(OSError):  # tried again before the next write
            self._sync_cut(fd)

    def _cut(self, fd: int) -> None:
        os.ftruncate(fd, self._length)
        self._sync_cut(fd)

    def _sync_cut(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            self._rest_error = error.strerror or str(error)
            raise
        self._has_rest, self._rest_error = False, ""

    def _sync_folder(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._must_sync_folder = False


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _content(path: Path) -> tuple[bytes, Identity]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(fd, READ_BYTES):
            parts.append(part)
        return b"".join(parts), _identity(os.fstat(fd))
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        num_written = os.write(fd, rest)
        if num_written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rest = rest[num_written:]
