"""Image embeddings in a bundle: the format of features.safetensors, with its only reader and its only writer.

    features    [F, D], float16 or float32
    id_bytes    uint8: the item ids in UTF-8, one after another
    id_offsets  int64 [F + 1]: where each id starts and ends
    metadata    `encoder` and `weights_sha256`: the image encoder that made the embeddings, if known

A row is an item that has an embedding; in a bundle, rows are in the catalog's order. Knows no other format:
`importers/features.py` reads those that embeddings are imported from.
"""

# N items of the catalog, F <= N of them with an embedding, D width, n rows of a piece

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from model.bundle.catalog import Catalog
from model.bundle.columns import Values
from model.bundle.joins import Join, match
from model.errors import BundleError

_ENCODER, _WEIGHTS_SHA256 = "encoder", "weights_sha256"  # keys of the metadata
_FLOATS: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_NAMES = {dtype: name for name, dtype in _FLOATS.items()}
_LENGTH_BYTES = 8  # a file begins with the length of its header
_ALIGNMENT = 8  # of the first tensor
_REMEDY = "encode or import the embeddings again"


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Embeddings of some items. `encoder` names the image encoder that made them, if known."""

    item_ids: tuple[str, ...]
    features: NDArray[np.floating]  # [F, D], float16 or float32; memory-mapped if read from a file
    encoder: str | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.item_ids):
            raise BundleError(
                f"features has shape {self.features.shape} for {len(self.item_ids)} item ids; "
                "it must have one row for each id"
            )
        if self.features.dtype not in (np.float16, np.float32):
            raise BundleError(f"features is of type {self.features.dtype}; it must be float16 or float32")

    @property
    def dim(self) -> int:
        return int(self.features.shape[1])

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        """Embeddings [len(places), D] of the items at these places of `item_ids`."""
        return self.features[places]

    def of(self, catalog: Catalog) -> ItemFeatures:
        """Those of the catalog's items, in its order. Raises BundleError if there are none."""
        row_of, _ = match(self.item_ids, catalog.item_ids)
        item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in row_of)
        if not item_ids:
            raise BundleError(
                f"none of the {len(self.item_ids)} embeddings is of an item in the catalog; check the item ids"
            )
        return ItemFeatures(item_ids, self.features[[row_of[item_id] for item_id in item_ids]], self.encoder)

    def join(self, catalog: Catalog) -> Join:
        """How embeddings and items meet."""
        row_of, unmatched = match(self.item_ids, catalog.item_ids)
        without = [item_id for item_id in catalog.item_ids if item_id not in row_of]
        return Join(len(catalog), "an embedding", "embedding", without, unmatched)

    def renamed(self, catalog: Catalog) -> ItemFeatures:
        """All embeddings, with the catalog's ids for those that meet it."""
        row_of, _ = match(self.item_ids, catalog.item_ids)
        item_ids = list(self.item_ids)
        for item_id, row in row_of.items():
            item_ids[row] = item_id
        return ItemFeatures(tuple(item_ids), self.features, self.encoder)


def load_features(path: Path, where: str = "features.safetensors", dim: int | None = None) -> ItemFeatures:
    """Open a file; rows are read from disk when they are used.

    Raises BundleError, which calls the file `where`, if the file breaks the format or is not `dim` wide.
    """
    file = _open(path, where, dim)
    return ItemFeatures(tuple(cast("list[str]", file.item_ids.to_pylist())), file.features, file.encoder)


def check_features(path: Path, dim: int, catalog: Catalog, where: str) -> None:
    """Raise BundleError unless the file follows the format, is `dim` wide and has only items of the catalog."""
    item_ids = _open(path, where, dim).item_ids
    is_known = pc.is_in(item_ids, catalog.table.column("item_id").cast(item_ids.type).combine_chunks())
    row = pc.index(is_known, value=False).as_py()
    if row >= 0:
        raise BundleError(f"{where}: item {item_ids[row].as_py()!r} is not in the catalog; {_REMEDY}")


def write_features(path: Path, found: ItemFeatures) -> None:
    write_feature_pieces(path, found.item_ids, [found.features], found.encoder)


def write_feature_pieces(
    path: Path,
    item_ids: Sequence[str],
    pieces: Iterable[NDArray[np.floating]],
    encoder: str | None,
    weights_sha256: str | None = None,
) -> None:
    """Write embeddings that need not fit into memory: `pieces` [n, D] hold the rows of all items, in order.

    The file appears when it is complete. Its bytes are those of the safetensors library, which writes from memory only.
    """
    remaining = iter(pieces)
    first = next(remaining)
    dtype, dim = _NAMES[first.dtype], first.shape[1]
    encoded = [item_id.encode() for item_id in item_ids]
    id_offsets = np.zeros(len(encoded) + 1, dtype="<i8")
    np.cumsum([len(item_id) for item_id in encoded], out=id_offsets[1:])
    num_bytes = int(id_offsets[-1])
    tensors = {  # in the library's order: the widest type first
        "id_offsets": ("I64", [len(id_offsets)], id_offsets.nbytes),
        "features": (dtype, [len(encoded), dim], len(encoded) * dim * first.dtype.itemsize),
        "id_bytes": ("U8", [num_bytes], num_bytes),
    }
    metadata = {_ENCODER: encoder, _WEIGHTS_SHA256: weights_sha256}
    with _replacing(path) as file:
        file.write(_header(tensors, {name: value for name, value in metadata.items() if value is not None}))
        file.write(id_offsets.tobytes())
        num_rows = 0
        for piece in itertools.chain([first], remaining):
            assert (piece.dtype, piece.shape[1]) == (first.dtype, dim)
            file.write(np.ascontiguousarray(piece, dtype=_FLOATS[dtype]).data)
            num_rows += len(piece)
        assert num_rows == len(encoded)
        file.write(b"".join(encoded))


@dataclass(frozen=True, eq=False)
class _File:
    """What a file that follows the format holds."""

    item_ids: Values
    features: NDArray[np.floating]  # [F, D], memory-mapped
    encoder: str | None


def _open(path: Path, where: str, dim: int | None) -> _File:
    try:
        with safe_open(path, framework="numpy") as tensors:
            missing = {"features", "id_bytes", "id_offsets"} - set(tensors.keys())
            if missing:
                raise BundleError(f"{where} has no tensor {', '.join(sorted(missing))}; {_REMEDY}")
            item_ids = _item_ids(tensors, where)
            dtype, shape = _kind(tensors, "features")
            encoder = (tensors.metadata() or {}).get(_ENCODER)
        has_row_per_id = len(shape) == 2 and shape[0] == len(item_ids)
        if dtype not in _FLOATS or not has_row_per_id or dim not in (None, shape[1]):
            raise BundleError(
                f"{where}: features is {dtype} {shape} for {len(item_ids)} item ids; it must be F16 or F32 "
                f"[{len(item_ids)}, {'D' if dim is None else dim}]; {_REMEDY}, with the model's own image encoder"
            )
        return _File(item_ids, _map_features(path, _FLOATS[dtype], shape), encoder)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{where} cannot be read: {error}; {_REMEDY}") from error


def _kind(tensors: safe_open, name: str) -> tuple[str, list[int]]:
    """Type and shape of a tensor, without reading it: numpy lacks some types."""
    stored = tensors.get_slice(name)
    return stored.get_dtype(), list(stored.get_shape())


def _item_ids(tensors: safe_open, where: str) -> Values:
    """The ids in the order of the rows, each once."""
    bytes_dtype, _ = _kind(tensors, "id_bytes")
    offsets_dtype, offsets_shape = _kind(tensors, "id_offsets")
    if (bytes_dtype, offsets_dtype, len(offsets_shape)) != ("U8", "I64", 1):
        raise BundleError(
            f"{where}: id_bytes is {bytes_dtype} and id_offsets {offsets_dtype} {offsets_shape}; they must be U8 and "
            f"I64 [F + 1]; {_REMEDY}"
        )
    id_bytes, id_offsets = tensors.get_tensor("id_bytes"), tensors.get_tensor("id_offsets")
    is_rising = bool((id_offsets[1:] >= id_offsets[:-1]).all())
    if not is_rising or id_offsets[:1].tolist() != [0] or id_offsets[-1] != id_bytes.size:
        raise BundleError(f"{where}: id_offsets must rise from 0 to {id_bytes.size}, the size of id_bytes; {_REMEDY}")
    buffers = [None, pa.py_buffer(id_offsets.tobytes()), pa.py_buffer(id_bytes.tobytes())]
    item_ids = pa.Array.from_buffers(pa.large_string(), len(id_offsets) - 1, buffers)
    try:
        item_ids.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BundleError(f"{where}: the item ids are not UTF-8 ({error}); {_REMEDY}") from error
    if pc.count_distinct(item_ids).as_py() != len(item_ids):
        ((repeated, count),) = Counter(item_ids.to_pylist()).most_common(1)
        raise BundleError(f"{where}: item {repeated!r} has {count} rows; each item has one; {_REMEDY}")
    return item_ids


def _map_features(path: Path, dtype: np.dtype[np.floating], shape: Sequence[int]) -> NDArray[np.floating]:
    """The tensor `features`, memory-mapped; the library would copy it. The header has been checked."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        start = json.loads(file.read(header_bytes))["features"]["data_offsets"][0]
        offset = _LENGTH_BYTES + header_bytes + start
        return np.asarray(np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=tuple(shape)))


def _header(tensors: Mapping[str, tuple[str, list[int], int]], metadata: Mapping[str, str]) -> bytes:
    """The header's length, then the header: JSON with each tensor's type, shape and position."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that replaces `path` at the end of the block, and is removed if the block fails."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
