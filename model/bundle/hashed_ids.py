"""Rows by id for tables of millions, in two arrays that processes share instead of a dictionary in each."""

# N rows, B buckets

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_HASH_BITS = 64


class HashedIds:
    """Rows in the order of their ids' hashes. A bucket has the rows whose hashes begin alike, one on average.

    An id is found by comparing it with those of its bucket, so ids of equal hashes cost time only.
    """

    def __init__(self, ids: Sequence[str], starts: NDArray[np.int32], rows: NDArray[np.int32]) -> None:
        """`ids` and `rows` [N]; `starts` [B + 1] is where each bucket begins in `rows`, and B a power of two."""
        assert len(ids) == len(rows)
        self.starts, self.rows = starts, rows
        self._ids = ids
        self._shift = _HASH_BITS + 1 - (len(starts) - 1).bit_length()
        self._starts, self._rows = starts.data, rows.data  # a number of these is read in a tenth of the time

    @classmethod
    def of(cls, ids: Sequence[str]) -> HashedIds:
        bits = max(1, len(ids)).bit_length()
        digests = b"".join(_digest(each) for each in ids)
        buckets = (np.frombuffer(digests, dtype="<u8") >> np.uint64(_HASH_BITS - bits)).astype(np.int64)
        starts = np.zeros((1 << bits) + 1, dtype=np.int32)
        np.cumsum(np.bincount(buckets, minlength=1 << bits), out=starts[1:])
        return cls(ids, starts, np.argsort(buckets, kind="stable").astype(np.int32))

    def get(self, each: str) -> int | None:
        """The row of an id."""
        try:
            digest = _digest(each)
        except UnicodeEncodeError:  # half a letter, which no stored id has
            return None
        bucket = int.from_bytes(digest, "little") >> self._shift
        for place in range(self._starts[bucket], self._starts[bucket + 1]):
            row: int = self._rows[place]
            if self._ids[row] == each:
                return row
        return None


@dataclass(frozen=True, eq=False)
class GrownIds:
    """The rows of a table, and of a few that were added to it."""

    base: Mapping[str, int] | HashedIds
    added: Mapping[str, int]

    @classmethod
    def of(cls, base: RowsById, added: Mapping[str, int]) -> GrownIds:
        if isinstance(base, GrownIds):
            return cls(base.base, {**base.added, **added})
        return cls(base, added)

    def get(self, each: str) -> int | None:
        """The row of an id."""
        row = self.base.get(each)
        return self.added.get(each) if row is None else row


RowsById = Mapping[str, int] | HashedIds | GrownIds


def _digest(each: str) -> bytes:
    return blake2b(each.encode(), digest_size=_HASH_BITS // 8).digest()
