"""Files that are opened once and read through that descriptor: never mapped into memory, never opened again.

A mapped page of a file that was truncated ends the process with SIGBUS, and one that was overwritten changes what was
verified. What is read here is a copy in this process's memory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

Content = bytes | memoryview
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class FileSignature:
    """What the file system says of a file. An unchanged signature means unchanged content, except for decay."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class OpenedFile:
    """A regular file, which stays the same file when its path gets another one; closed when it is dropped."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also for a pipe, a socket and a folder."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not block
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self.size = status.st_size
        self.signature = FileSignature.of(status)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from an offset; returns the number of bytes, fewer only at the end of the file."""
        num_read = 0
        while num_read < len(buffer):
            step = os.preadv(self._descriptor, [buffer[num_read:]], offset + num_read)
            if not step:
                break
            num_read += step
        return num_read

    def read(self, offset: int, size: int) -> memoryview:
        """Raises OSError if the file has become shorter."""
        buffer = np.empty(size, dtype=np.uint8).data
        self.fill(buffer, offset)
        return buffer

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Raises OSError if the file has become shorter."""
        if self.read_into(buffer, offset) < len(buffer):
            raise OSError(errno.EIO, "the file became shorter while it was read")

    def content(self) -> memoryview:
        """All of the file, as long as it was when it was opened. Raises OSError if it has become shorter."""
        return self.read(0, self.size)

    def sha256(self) -> str:
        """The digest of all of the file, in hexadecimal. Raises OSError if it has become shorter."""
        digest = hashlib.sha256()
        buffer = np.empty(min(self.size, _PIECE_BYTES), dtype=np.uint8).data
        for offset in range(0, self.size, _PIECE_BYTES):
            piece = buffer[: self.size - offset]
            self.fill(piece, offset)
            digest.update(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Idempotent."""
        self._closing()
