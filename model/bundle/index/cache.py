"""A folder of indexes, which spares the next start from compiling them.

A file is named by its key, appears when it is complete, and is used only if nobody else could have written it and its
content has the checksum of its header. Any other is reported and built again. The folder holds copies only: it may be
emptied at any time.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from model.bundle.index.index import Index
from model.errors import IntegrityError

logger = logging.getLogger(__name__)

MIN_ITEMS = 20_000
"""Catalogs below are compiled in a fraction of a second, and not kept."""
MOST_KEPT_BYTES = 8 << 30
"""The least recently used indexes beyond this are removed."""

_SUFFIX = ".index"
_ABANDONED_S = 3600
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UntrustedError(Exception):
    """A file or folder that somebody else may have written."""


class IndexCache:
    """Indexes by key in one folder. Every fault of the folder is logged, and means that there is no index."""

    def __init__(self, folder: Path, *, min_items: int = MIN_ITEMS, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self.folder = folder
        self.min_items = min_items
        self._most_bytes = most_bytes

    def find(self, key: str) -> Index | None:
        """The index with this key, if there is one that is trusted and intact."""
        where = f"{key[:12]}{_SUFFIX}"
        try:
            with self._opened(makes=False) as folder:
                index = _read(folder, key, where)
        except FileNotFoundError:
            return None
        except (OSError, UntrustedError, IntegrityError) as error:
            self._report("index_not_used", error, key)
            return None
        logger.info("index_found", extra={"folder": str(self.folder), "key": key, "bytes": index.memory.size})
        return index

    def path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def has(self, key: str) -> bool:
        """Whether there is a file, which may be damaged."""
        return self.path(key).is_file()

    def keep(self, index: Index) -> bool:
        """Write an index; whether that was possible. Writers of the same key do not disturb each other."""
        try:
            with self._opened(makes=True) as folder:
                _write(folder, index)
                _prune(folder, self._most_bytes)
        except (OSError, UntrustedError) as error:
            self._report("index_not_kept", error, index.key)
            return False
        logger.info("index_kept", extra={"folder": str(self.folder), "key": index.key, "bytes": index.memory.size})
        return True

    def _report(self, event: str, error: Exception, key: str) -> None:
        logger.warning(event, extra={"folder": str(self.folder), "key": key, "reason": str(error)})

    @contextmanager
    def _opened(self, *, makes: bool) -> Iterator[int]:
        """The folder's descriptor, through which its files are opened. Raises OSError and UntrustedError."""
        if makes:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        real = self.folder.resolve(strict=True)
        _check_above(real)
        descriptor = os.open(real, _FOLDER)
        try:
            _check(os.fstat(descriptor), str(real))
            yield descriptor
        finally:
            os.close(descriptor)


def _check_above(folder: Path) -> None:
    """Raise UntrustedError if somebody else can put another folder in this one's place."""
    for parent in folder.parents:
        status = parent.stat()
        if not status.st_mode & stat.S_ISVTX:
            _check(status, str(parent))


def _check(status: os.stat_result, where: str) -> None:
    if status.st_uid not in _trusted_users():
        raise UntrustedError(f"{where} belongs to user {status.st_uid}; use a folder of this user's or root's")
    if status.st_mode & _OTHERS_WRITE:
        raise UntrustedError(f"others may write to {where}; remove that permission (chmod go-w)")


def _trusted_users() -> tuple[int, ...]:
    return (0, os.geteuid())


def _read(folder: int, key: str, where: str) -> Index:
    descriptor = os.open(key + _SUFFIX, _FILE, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedError(f"{where} is not a regular file")
        _check(status, where)
        index = Index.verified(descriptor, where)
        if index.key != key:
            raise IntegrityError(f"{where} is an index of something else")
        with suppress(OSError):
            os.utime(descriptor)  # for the order in which indexes are removed
        return index
    finally:
        os.close(descriptor)


def _write(folder: int, index: Index) -> None:
    temporary = f".{index.key}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(index.memory.map())
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, index.key + _SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _prune(folder: int, most_bytes: int) -> None:
    """Remove what writers that were killed have left, and the least recently used indexes beyond the limit."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process prunes too
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    newest = max((status.st_mtime for _, status in found), default=0.0)
    kept = 0
    for name, status in sorted(found, key=lambda each: each[1].st_mtime, reverse=True):
        is_index = name.endswith(_SUFFIX)
        kept += status.st_size if is_index else 0
        is_abandoned = name.startswith(".") and newest - status.st_mtime > _ABANDONED_S
        is_beyond = is_index and kept > most_bytes and status.st_mtime < newest
        if is_abandoned or is_beyond:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
