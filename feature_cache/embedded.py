"""The embedded feature store: a bundle's own file of image embeddings, memory-mapped.

The file is safetensors with `features` [N, D] (float16 or float32), `id_bytes` uint8 (all item ids in UTF-8, one after
another) and `id_offsets` int64 [N + 1] (where each id starts and ends). Only items that have an embedding are rows.
"""

# N rows of the file, D width of an embedding

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from feature_cache.errors import FeatureFileError
from feature_cache.store import EMBEDDED_TIER, FeatureBatch, FeatureObserver

FLOATS = ("F16", "F32")


class _Rows(Protocol):
    """What safetensors gives for a tensor that stays on disk until it is sliced."""

    def __getitem__(self, rows: slice) -> NDArray[np.floating]: ...

    def get_shape(self) -> list[int]: ...

    def get_dtype(self) -> str: ...


class FeatureFile:
    """One memory-mapped file; a row is read from disk when it is asked for."""

    def __init__(self, path: Path, rows: _Rows, row_of: dict[str, int], encoder: str | None = None) -> None:
        self._path = path
        self.encoder = encoder  # that made the embeddings, where the file says so
        self._rows = rows
        self._row_of = row_of

    @classmethod
    def open(cls, path: Path) -> FeatureFile:
        """Raises FeatureFileError naming the file and the rule."""
        try:
            with safe_open(path, framework="numpy") as tensors:
                rows: _Rows = tensors.get_slice("features")
                id_bytes = tensors.get_tensor("id_bytes")
                id_offsets = tensors.get_tensor("id_offsets")
                encoder = (tensors.metadata() or {}).get("encoder")
        except (SafetensorError, OSError) as error:
            raise FeatureFileError(
                f"{path}: not a file of image embeddings ({error}); it needs features, id_bytes and id_offsets"
            ) from error
        item_ids = _item_ids(path, id_bytes, id_offsets)
        shape = rows.get_shape()
        if len(shape) != 2 or shape[0] != len(item_ids) or rows.get_dtype() not in FLOATS:
            raise FeatureFileError(
                f"{path}: features is {rows.get_dtype()} {shape} for {len(item_ids)} item ids; it must be [N, D] of"
                f" {' or '.join(FLOATS)} with a row for each id"
            )
        row_of = {item_id: row for row, item_id in enumerate(item_ids)}
        if len(row_of) != len(item_ids):
            raise FeatureFileError(f"{path}: some item id stands twice; each may have one row only")
        return cls(path, rows, row_of, encoder)

    @property
    def dim(self) -> int:
        return self._rows.get_shape()[1]

    @property
    def item_ids(self) -> list[str]:
        """In the order of the rows."""
        return list(self._row_of)

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        """Rows [len(places), D] as the file holds them."""
        if len(places) == 0:
            return self._rows[0:0]
        return np.stack([self._rows[place : place + 1][0] for place in places.tolist()])

    def __len__(self) -> int:
        return len(self._row_of)

    def read(self, item_ids: Sequence[str]) -> FeatureBatch:
        """Rows of the given items in float32; what the file does not hold is zero and marked."""
        features = np.zeros((len(item_ids), self.dim), dtype=np.float32)
        is_present = np.zeros(len(item_ids), dtype=np.bool_)
        for place, item_id in enumerate(item_ids):
            row = self._row_of.get(item_id)
            if row is not None:
                features[place] = self._rows[row : row + 1][0]
                is_present[place] = True
        return FeatureBatch(features=features, is_present=is_present)


class EmbeddedStore:
    """A feature store over a bundle's file; without a file, no item has an embedding."""

    def __init__(self, file: FeatureFile | None, dim: int, observer: FeatureObserver) -> None:
        """`dim` is the width that the model reads. Raises FeatureFileError where the file has another one."""
        if file is not None and file.dim != dim:
            raise FeatureFileError(
                f"the embeddings are {file.dim} wide, but the model reads {dim}; encode the pictures with the image"
                " encoder that the domain was tuned on"
            )
        self._file = file
        self._dim = dim
        self._observer = observer

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        started_at = time.perf_counter()
        batch = self._read(item_ids)
        num_present = int(batch.is_present.sum())
        duration_s = time.perf_counter() - started_at
        self._observer.observe_features(EMBEDDED_TIER, num_present, len(item_ids) - num_present, duration_s)
        return batch

    def _read(self, item_ids: Sequence[str]) -> FeatureBatch:
        if self._file is None:
            return FeatureBatch(
                features=np.zeros((len(item_ids), self._dim), dtype=np.float32),
                is_present=np.zeros(len(item_ids), dtype=np.bool_),
            )
        return self._file.read(item_ids)


def _item_ids(path: Path, id_bytes: NDArray[np.uint8], id_offsets: NDArray[np.int64]) -> list[str]:
    text = id_bytes.tobytes()
    offsets = id_offsets.tolist()
    is_partition = offsets[:1] == [0] and offsets[-1] == len(text) and offsets == sorted(offsets)
    if id_bytes.dtype != np.uint8 or id_offsets.dtype != np.int64 or not is_partition:
        raise FeatureFileError(
            f"{path}: id_offsets must be int64, rise from 0 and end at the length of id_bytes (uint8)"
        )
    try:
        return [text[start:end].decode() for start, end in itertools.pairwise(offsets)]
    except UnicodeDecodeError as error:
        raise FeatureFileError(f"{path}: id_bytes is not UTF-8 ({error})") from error
