"""An index in sealed memory, which a process makes or verifies once and shares by its descriptor.

index = Index.build(key, tables)               # or Index.verified(descriptor of a file, where)
socket.send_fds(channel, [b"."], [index.memory.descriptor])
same = Index.open(SealedMemory(received))      # in another process: no copy, no check of the content again
"""

from __future__ import annotations

from dataclasses import dataclass

from model.bundle.index.contents import IndexedTables, sections_of, tables_in
from model.bundle.index.layout import parse, pieces
from model.bundle.index.sealed import SealedMemory


@dataclass(frozen=True, eq=False)
class Index:
    """Tables whose columns and arrays are views of the memory."""

    key: str
    memory: SealedMemory
    tables: IndexedTables

    @classmethod
    def build(cls, key: str, tables: IndexedTables) -> Index:
        """Raises OSError if there is no memory left."""
        return cls.open(SealedMemory.of(pieces(key, sections_of(tables))))

    @classmethod
    def verified(cls, descriptor: int, where: str) -> Index:
        """From a file, which is compared with its checksum while it is copied.

        Raises IntegrityError, which names `where`, for a damaged file, and OSError.
        """
        return cls.open(SealedMemory.copy_of(descriptor, where), where)

    @classmethod
    def open(cls, memory: SealedMemory, where: str = "the index") -> Index:
        """From memory that was verified before it was sealed. Raises IntegrityError for what is no index."""
        key, sections = parse(memory.map(), where)
        return cls(key, memory, tables_in(sections, where))
