"""Rows of a large file, read when they are needed and compared with checksums that were taken when it was verified.

A row that was overwritten, cut off or cannot be read is noticed by whoever reads it. The checksum is multilinear
hashing with a secret key (Lemire and Kaser 2014): a changed row passes with a probability of at most 2^-32, also if the
change was chosen. It is computed for many rows at once, and takes 8 bytes of memory for each.
"""

# F rows, n of them in a request or a piece, D width, W words of 4 bytes in a row

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.bundle.finite_rows import first_not_finite
from model.bundle.opened_file import OpenedFile
from model.errors import IntegrityError

_WORD_BYTES = 4
_STEP_BYTES = 128 << 10  # stays in the processor's cache
_PIECE_BYTES = 4 << 20

CHANGED = "was changed after it was opened; restore the file from its source, and open it again"


@dataclass(frozen=True, eq=False)
class ReadRows:
    """Embeddings of n items; a row that is not as it was verified is zero and not intact."""

    values: NDArray[np.floating]  # [n, D]
    is_intact: NDArray[np.bool_]  # [n]


@dataclass(frozen=True)
class RowPlace:
    """Where the rows are in a file."""

    start: int
    num_rows: int
    dim: int
    dtype: np.dtype[np.floating]

    @property
    def row_bytes(self) -> int:
        return self.dim * self.dtype.itemsize


class StoredRows:
    """A matrix [F, D] on disk; indexing it raises IntegrityError if a row is not as it was verified."""

    def __init__(self, file: OpenedFile, place: RowPlace, consume: Callable[[memoryview], object]) -> None:
        """Read all rows once; `consume` gets their bytes in order. Raises OSError."""
        self._file = file
        self._place = place
        num_words = -(-place.row_bytes // _WORD_BYTES)
        self._key = np.frombuffer(secrets.token_bytes(8 * (num_words + 1)), dtype=np.uint64)
        self._checksums = np.empty(place.num_rows, dtype=np.uint64)
        self.first_not_finite: int | None = None
        """The first row that has values which are NaN or infinite."""
        per_piece = max(1, _PIECE_BYTES // max(1, place.row_bytes))
        buffer = np.empty((min(per_piece, place.num_rows), place.row_bytes), dtype=np.uint8)
        for begin in range(0, place.num_rows, per_piece):
            rows = buffer[: min(per_piece, place.num_rows - begin)]
            content = rows.reshape(-1).data
            file.fill(content, place.start + begin * place.row_bytes)
            consume(content)
            self._checksums[begin : begin + len(rows)] = self._sums(rows)
            if self.first_not_finite is None and place.dim:
                found = first_not_finite(rows.view(place.dtype))
                self.first_not_finite = None if found is None else begin + found

    @property
    def shape(self) -> tuple[int, int]:
        return self._place.num_rows, self._place.dim

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self._place.dtype

    def __len__(self) -> int:
        return self._place.num_rows

    def read(self, places: NDArray[np.int64]) -> ReadRows:
        """The rows [n, D] at these places."""
        size, start = self._place.row_bytes, self._place.start
        rows = np.zeros((len(places), size), dtype=np.uint8)
        content = rows.reshape(-1).data
        for number, place in enumerate(places.tolist()):
            self._read_row(content[number * size : (number + 1) * size], start + place * size)
        is_intact = self._sums(rows) == self._checksums[places]
        rows[~is_intact] = 0
        return ReadRows(rows.reshape(-1).view(self.dtype).reshape(len(places), self._place.dim), is_intact)

    def __getitem__(self, index: NDArray[np.int64] | slice) -> NDArray[np.floating]:
        places = np.arange(*index.indices(len(self))) if isinstance(index, slice) else index
        found = self.read(places)
        if not found.is_intact.all():
            raise IntegrityError(f"the file of embeddings {CHANGED}")
        return found.values

    def _read_row(self, row: memoryview, offset: int) -> None:
        """Leaves a row that cannot be read, or not to its end, as its checksum will not be."""
        try:
            self._file.read_into(row, offset)
        except OSError:
            row[:] = bytes(len(row))

    def _sums(self, rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """The checksums of rows [n, bytes]."""
        missing = -rows.shape[1] % _WORD_BYTES
        if missing:
            rows = np.pad(rows, ((0, 0), (0, missing)))
        num_words = rows.shape[1] // _WORD_BYTES
        words = rows.reshape(-1).view(np.uint32).reshape(len(rows), num_words)
        sums = np.empty(len(rows), dtype=np.uint64)
        step = max(1, _STEP_BYTES // max(1, rows.shape[1]))
        for begin in range(0, len(rows), step):
            sums[begin : begin + step] = words[begin : begin + step].astype(np.uint64) @ self._key[:num_words]
        sums += self._key[num_words]
        return sums
