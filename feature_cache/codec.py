"""Embeddings as bytes: raw little-endian floats, followed by a checksum and, with a secret, by a signature.

The checksum covers encoder, type, width, item and floats. A value that is truncated, of another item or by another
encoder is detected when it is read, and counts as a miss instead of reaching a prompt. The signature also covers the
domain and the version, and keeps those out who can write to Redis; readers without a secret ignore it.
"""

# N items, D width

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feature_cache.errors import FeatureValueError
from feature_cache.signing import SHORT_BYTES, Signer

DType: TypeAlias = Literal["float16", "float32"]
DTYPES: tuple[DType, ...] = ("float16", "float32")

CHECKSUM_BYTES = 4

# Each of the 65,536 float16 values in float32. A lookup is three times as fast as numpy's conversion.
_FLOAT32_OF_HALF: NDArray[np.float32] = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Codec:
    """Encodes and decodes embeddings of one encoder, type and width; with a signer, also of one domain and version."""

    encoder: str
    dtype: DType
    dim: int
    signer: Signer | None = None

    @cached_property
    def row_bytes(self) -> int:
        return self.dim * (2 if self.dtype == "float16" else 4)

    @property
    def value_bytes(self) -> int:
        return self.row_bytes + CHECKSUM_BYTES + (SHORT_BYTES if self.signer else 0)

    def encode(self, item_ids: Sequence[str], features: NDArray[np.floating]) -> list[bytes]:
        """Values of [N, D] embeddings. Raises FeatureValueError for another width or numbers that are not finite."""
        if features.shape != (len(item_ids), self.dim):
            raise FeatureValueError(
                f"features have shape {list(features.shape)} for {len(item_ids)} items; those by {self.encoder} have"
                f" shape {[len(item_ids), self.dim]}, so encode the pictures with {self.encoder}"
            )
        with np.errstate(over="ignore"):  # numbers that are too large become infinite and are refused below
            rows = np.ascontiguousarray(features, dtype=np.dtype(self.dtype).newbyteorder("<"))
        is_finite = np.isfinite(rows).all(axis=1)
        if not is_finite.all():
            item_id = item_ids[int(is_finite.argmin())]
            raise FeatureValueError(
                f"the embedding of {item_id!r} has values that are NaN, infinite or out of range for"
                f" {self.dtype}; encode its picture again"
            )
        payloads = [row.tobytes() for row in rows]
        return [
            row + self._checksum(item_id, row) + self._signature(item_id, row)
            for item_id, row in zip(item_ids, payloads, strict=True)
        ]

    def row_of(self, item_id: str, value: object) -> bytes | None:
        """The raw floats of a value.

        None if it is not an embedding of this item by this encoder, type and width, or if a signature is required and
        it has none, or a wrong one.
        """
        checked_bytes = self.row_bytes + CHECKSUM_BYTES
        if type(value) is not bytes or len(value) not in {checked_bytes, checked_bytes + SHORT_BYTES}:
            return None
        row, signature = value[: self.row_bytes], value[checked_bytes:]
        if self.signer is not None and (signature or not self.signer.accepts_unsigned):
            return row if self.signer.is_short_valid(signature, item_id.encode() + row) else None
        return row if value[self.row_bytes : checked_bytes] == self._checksum(item_id, row) else None

    def finite(self, rows: Sequence[bytes | None]) -> list[bytes | None]:
        """Raw floats; None for those that are not finite, which a network cannot take."""
        places = [place for place, row in enumerate(rows) if row is not None]
        found = list(rows)
        if places:
            is_finite = np.isfinite(self.decode([row for row in rows if row is not None])).all(axis=1)
            for bad in np.flatnonzero(~is_finite).tolist():
                found[places[bad]] = None
        return found

    def decode(self, rows: Sequence[bytes]) -> NDArray[np.float32]:
        """Raw floats of N items as [N, D], without loss."""
        joined = b"".join(rows)
        if self.dtype == "float16":
            halves = np.frombuffer(joined, dtype="<u2")
            return _FLOAT32_OF_HALF.take(halves).reshape(len(rows), self.dim)
        return np.frombuffer(joined, dtype="<f4").astype(np.float32).reshape(len(rows), self.dim)

    @cached_property
    def _seed(self) -> int:
        return zlib.crc32(f"{self.encoder}\0{self.dtype}\0{self.dim}".encode())

    def _signature(self, item_id: str, row: bytes) -> bytes:
        return b"" if self.signer is None else self.signer.short_sign(item_id.encode() + row)

    def _checksum(self, item_id: str, row: bytes) -> bytes:
        return zlib.crc32(row, zlib.crc32(item_id.encode(), self._seed)).to_bytes(CHECKSUM_BYTES, "little")
