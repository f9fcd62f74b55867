"""Folders that appear and are replaced as a whole, even if the machine stops in between."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def temporary_sibling(target: Path) -> Path:
    """A new empty folder on the target's file system, hidden from those who list bundles."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))


def link_tree(source: Path, target: Path) -> None:
    """Hard links where the file system has them, copies where not; links in `source` become plain files."""
    shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def publish(folder: Path, target: Path) -> None:
    """Make `folder` be `target`; what was there before is removed.

    Everything reaches the disk first, readable by whoever runs the service. Where the system can exchange two folders,
    there is no moment without `target`.
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
