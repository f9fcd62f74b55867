"""Memory that several processes share and none can change: sealed, without a path.

A mapped file would change under its readers when somebody overwrites it, and end them with SIGBUS when somebody
shortens it. A sealed memory file (memfd_create, F_ADD_SEALS) has one copy for all processes that have its descriptor,
and the kernel refuses writes, changes of size and the removal of the seals.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import weakref
from collections.abc import Iterable

import numpy as np

from model.bundle.index.layout import HEADER_START, MOST_BYTES, Prefix
from model.errors import IntegrityError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PIECE_BYTES = 4 << 20
_NAME = "vip5-index"


class SealedMemory:
    """Owns a descriptor, which is closed when the object is dropped; maps that were made stay."""

    def __init__(self, descriptor: int) -> None:
        """Takes over the descriptor, also when it raises IntegrityError: for a file that is not sealed."""
        self._closing = weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError as error:
            self.close()
            raise IntegrityError(f"descriptor {descriptor} is no memory file that can be sealed: {error}") from error
        if seals & _SEALS != _SEALS:
            self.close()
            raise IntegrityError(f"descriptor {descriptor} is not sealed; it can still be changed by another process")
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def of(cls, pieces: Iterable[bytes | memoryview]) -> SealedMemory:
        """Write the pieces, then seal. Raises OSError if there is no memory left."""
        descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            for piece in pieces:
                _write(descriptor, memoryview(piece))
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @classmethod
    def copy_of(cls, descriptor: int, where: str) -> SealedMemory:
        """A copy of an index in a file, verified while it is copied: what is compared is what is sealed.

        Raises IntegrityError, which names `where`, for a damaged file, and OSError.
        """
        size = os.fstat(descriptor).st_size
        if size > MOST_BYTES:
            raise IntegrityError(f"{where} has {size} bytes, the limit is {MOST_BYTES}")
        prefix = Prefix.parse(os.pread(descriptor, HEADER_START, 0), size, where)
        digest = hashlib.sha256(prefix.hashed)

        def verified() -> Iterable[bytes | memoryview]:
            yield prefix.hashed
            yield prefix.digest
            buffer = np.empty(_PIECE_BYTES, dtype=np.uint8).data
            for offset in range(HEADER_START, size, _PIECE_BYTES):
                piece = buffer[: min(_PIECE_BYTES, size - offset)]
                if os.preadv(descriptor, [piece], offset) != len(piece):
                    raise IntegrityError(f"{where} became shorter while it was read")
                digest.update(piece)
                yield piece

        memory = cls.of(verified())
        if digest.digest() != prefix.digest:
            memory.close()
            raise IntegrityError(f"{where} is damaged: its content does not have the checksum of its header")
        return memory

    def map(self) -> memoryview:
        """All of it, read-only; stays valid after `close`."""
        return memoryview(mmap.mmap(self.descriptor, self.size, mmap.MAP_SHARED, mmap.PROT_READ))

    def close(self) -> None:
        """Idempotent."""
        self._closing()


def _write(descriptor: int, content: memoryview) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
