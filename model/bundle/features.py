"""Image embeddings in a bundle: the format of features.safetensors, and its only writer.

    features    [F, D], float16 or float32
    id_bytes    uint8: the item ids in UTF-8, one after another
    id_offsets  int64 [F + 1]: where each id starts and ends
    metadata    `encoder` and `weights_sha256`: the image encoder that made the embeddings, if known

A row is an item that has an embedding; in a bundle, rows are in the catalog's order. Knows no other format:
`importers/features.py` reads those that embeddings are imported from. `feature_file.py` is the format's only reader.
"""

# N items of the catalog, F <= N of them with an embedding, D width, n rows of a piece

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.column_texts import as_column, texts_of
from model.bundle.columns import in_one_chunk, numbers
from model.bundle.feature_file import ENCODER, FLOATS, REMEDY, Verify, read_feature_file
from model.bundle.folders import replacing
from model.bundle.joins import Join, match
from model.bundle.opened_file import OpenedFile
from model.bundle.safetensors_format import LENGTH_BYTES
from model.bundle.stored_rows import ReadRows, StoredRows
from model.errors import BundleError

_WEIGHTS_SHA256 = "weights_sha256"  # of the metadata
_NAMES = {dtype: name for name, dtype in FLOATS.items()}
_ALIGNMENT = 8  # of the first tensor
_PIECE_ROWS = 8192


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Embeddings of some items. `encoder` names the image encoder that made them, if known."""

    item_ids: Sequence[str]
    matrix: NDArray[np.floating] | StoredRows  # [F, D], float16 or float32; on disk if it is a large file's
    encoder: str | None = None

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or len(self.matrix) != len(self.item_ids):
            raise BundleError(
                f"features has shape {self.matrix.shape} for {len(self.item_ids)} item ids; it must have one row for "
                "each id"
            )
        if self.matrix.dtype not in (np.float16, np.float32):
            raise BundleError(f"features is of type {self.matrix.dtype}; it must be float16 or float32")

    @property
    def features(self) -> NDArray[np.floating]:
        """All embeddings [F, D] in memory. Raises IntegrityError if the file that they are read from was changed."""
        return self.matrix[:]

    @property
    def dim(self) -> int:
        return int(self.matrix.shape[1])

    def read(self, places: NDArray[np.int64]) -> ReadRows:
        """Embeddings [len(places), D] of the items at these places of `item_ids`, and which of them are intact."""
        if isinstance(self.matrix, StoredRows):
            return self.matrix.read(places)
        return ReadRows(self.matrix[places], np.ones(len(places), dtype=np.bool_))

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        """Embeddings [len(places), D] of the items at these places of `item_ids`.

        Raises IntegrityError if the file that they are read from was changed.
        """
        return self.matrix[places]

    def of(self, catalog: Catalog) -> ItemFeatures:
        """Those of the catalog's items, in its order. Raises BundleError if there are none."""
        row_of, _ = match(self.item_ids, catalog.item_ids)
        item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in row_of)
        if not item_ids:
            raise BundleError(
                f"none of the {len(self.item_ids)} embeddings is of an item in the catalog; check the item ids"
            )
        places = np.array([row_of[item_id] for item_id in item_ids], dtype=np.int64)
        return ItemFeatures(item_ids, self.rows(places), self.encoder)

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
        return ItemFeatures(tuple(item_ids), self.matrix, self.encoder)


def load_features(path: Path, where: str = "features.safetensors", dim: int | None = None) -> ItemFeatures:
    """Open a file on its own, without a manifest. A large one stays on disk.

    Raises BundleError, which calls the file `where`, if the file breaks the format or is not `dim` wide.
    """
    try:
        file = OpenedFile(path)
    except OSError as error:
        raise BundleError(f"{where} cannot be read: {error}; {REMEDY}") from error
    return open_features(file, where, dim)


def open_features(file: OpenedFile, where: str, dim: int | None, verify: Verify | None = None) -> ItemFeatures:
    """Like `load_features`; `verify` is told the SHA-256 of what was read."""
    found = read_feature_file(file, where, dim, verify)
    return ItemFeatures(texts_of(pa.chunked_array([found.item_ids])), found.features, found.encoder)


def check_features(found: ItemFeatures, catalog: Catalog, where: str) -> None:
    """Raise BundleError unless all embeddings are of items in the catalog."""
    is_known = rows_of(found, catalog) >= 0
    if not is_known.all():
        unknown = found.item_ids[int(is_known.argmin())]
        raise BundleError(f"{where}: item {unknown!r} is not in the catalog; {REMEDY}")


def rows_of(found: ItemFeatures, catalog: Catalog) -> NDArray[np.int32]:
    """The catalog's row of each embedding, [F]; -1 if the item is not in the catalog."""
    known = in_one_chunk(catalog.table.column("item_id"))
    return numbers(pc.index_in(as_column(found.item_ids), value_set=known), missing=-1)


def places_of(found: ItemFeatures, catalog: Catalog) -> NDArray[np.int32]:
    """The place of each item's embedding in `found`, [N]; -1 if it has none."""
    rows = rows_of(found, catalog)
    places = np.full(len(catalog), -1, dtype=np.int32)
    places[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    return places


def write_features(path: Path, found: ItemFeatures) -> None:
    """The file appears when it is complete."""
    write_feature_pieces(path, found.item_ids, _pieces(found), found.encoder)


def _pieces(found: ItemFeatures) -> Iterator[NDArray[np.floating]]:
    for begin in range(0, max(1, len(found.item_ids)), _PIECE_ROWS):
        yield found.matrix[begin : begin + _PIECE_ROWS]


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
    metadata = {ENCODER: encoder, _WEIGHTS_SHA256: weights_sha256}
    with replacing(path) as file:
        file.write(_header(tensors, {name: value for name, value in metadata.items() if value is not None}))
        file.write(id_offsets.tobytes())
        num_rows = 0
        for piece in itertools.chain([first], remaining):
            assert (piece.dtype, piece.shape[1]) == (first.dtype, dim)
            file.write(np.ascontiguousarray(piece, dtype=FLOATS[dtype]).data)
            num_rows += len(piece)
        assert num_rows == len(encoded)
        file.write(b"".join(encoded))


def _header(tensors: Mapping[str, tuple[str, list[int], int]], metadata: Mapping[str, str]) -> bytes:
    """The header's length, then the header: JSON with each tensor's type, shape and position."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
