"""Atomic creation and replacement of files and folders, which a crash cannot leave half-done."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces `path` at the end of the block, and is removed if the block fails.

    Who has the old file open keeps it. A pipe or a device is written as it is. An OSError that names no file, such as
    that of a full disk, names `path`.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that replaces what was there when it is complete; of a symbolic link, what it leads to."""
    with replacing(path.resolve()) as file:
        file.write(content)


def is_free(target: Path) -> bool:
    """Whether nothing is at the target, or only an empty folder."""
    return not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir()))


def temporary_sibling(target: Path) -> Path:
    """A new empty folder next to the target, hidden from listings of bundles."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))


def link_tree(source: Path, target: Path) -> None:
    """Copy a tree with hard links, or with copies if links are not supported; symbolic links become files."""
    shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def publish(folder: Path, target: Path) -> None:
    """Move `folder` to `target`, replacing what was there.

    All files are synced to disk first and made readable for other users. If the system can exchange two folders,
    `target` exists at every moment.
    """
    _sync_tree(folder)
    if not target.exists():
        folder.rename(target)
    else:
        _exchange(folder, target)
        shutil.rmtree(folder)
    _sync(target.parent)


def _exchange(folder: Path, target: Path) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        status = rename(_AT_FDCWD, os.fsencode(folder), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE)
        if status == 0:
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), str(target))
    aside = temporary_sibling(target)
    target.rename(aside)
    folder.rename(target)
    aside.rename(folder)


def _link_or_copy(source: str, target: str) -> None:
    real = Path(source).resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent) / name
            path.chmod(0o644)
            _sync(path)
        Path(parent).chmod(0o755)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
