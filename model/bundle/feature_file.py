"""Reads files of the format of features.safetensors, which `features.py` describes.

A small file is read into memory. A large one stays on disk: its rows are read through the descriptor that was verified,
and compared with checksums that were taken then (`stored_rows.py`).
"""

# F items with an embedding, D width

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.bundle.columns import Values
from model.bundle.finite_rows import first_not_finite
from model.bundle.opened_file import Content, OpenedFile
from model.bundle.safetensors_format import (
    LENGTH_BYTES,
    FormatError,
    Header,
    StoredTensor,
    header_bytes,
    parse_header,
)
from model.bundle.stored_rows import RowPlace, StoredRows
from model.errors import BundleError, IntegrityError

MOST_HELD_BYTES = 256 << 20
"""Files up to this size are held in memory; half a million embeddings of 256 halves."""

REMEDY = "encode or import the embeddings again"
ENCODER = "encoder"
FLOATS: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_NAMES = ("features", "id_bytes", "id_offsets")
_PIECE_BYTES = 4 << 20

Verify = Callable[[str], None]
"""Told the SHA-256 of a file, in hexadecimal; raises IntegrityError for another than expected."""


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """What a file that follows the format holds."""

    item_ids: Values
    features: NDArray[np.floating] | StoredRows  # [F, D]
    encoder: str | None


def read_feature_file(file: OpenedFile, where: str, dim: int | None, verify: Verify | None = None) -> FeatureFile:
    """Read or open a file, of which each byte is read once, `verify` included.

    Raises BundleError, which calls the file `where`, if the file breaks the format or is not `dim` wide.
    """
    try:
        read = _read_held if file.size <= MOST_HELD_BYTES else _read_stored
        return read(file, _Format(where, dim), verify)
    except FormatError as error:
        raise BundleError(f"{where} cannot be read: {error}; {REMEDY}") from error
    except OSError as error:
        raise IntegrityError(f"{where} cannot be read: {error}; copy it again from its source") from error


@dataclass(frozen=True)
class _Format:
    """The rules of the format, for a file that messages call `where`."""

    where: str
    dim: int | None

    def check_names(self, header: Header) -> None:
        missing = sorted(set(_NAMES) - header.tensors.keys())
        if missing:
            raise BundleError(f"{self.where} has no tensor {', '.join(missing)}; {REMEDY}")
        id_bytes, offsets = header.tensors["id_bytes"], header.tensors["id_offsets"]
        if (id_bytes.dtype, offsets.dtype, len(offsets.shape)) != ("U8", "I64", 1):
            raise BundleError(
                f"{self.where}: id_bytes is {id_bytes.dtype} and id_offsets {offsets.dtype} {list(offsets.shape)}; "
                f"they must be U8 and I64 [F + 1]; {REMEDY}"
            )

    def place(self, stored: StoredTensor, num_items: int) -> RowPlace:
        """Where the rows of this many items are."""
        shape = stored.shape
        has_row_per_id = len(shape) == 2 and shape[0] == num_items
        if stored.dtype not in FLOATS or not has_row_per_id or self.dim not in (None, shape[1]):
            raise BundleError(
                f"{self.where}: features is {stored.dtype} {list(shape)} for {num_items} item ids; it must be F16 or "
                f"F32 [{num_items}, {'D' if self.dim is None else self.dim}]; {REMEDY}, with the model's own image "
                "encoder"
            )
        return RowPlace(stored.start, shape[0], shape[1], FLOATS[stored.dtype])

    def item_ids(self, id_offsets: Content, id_bytes: Content) -> Values:
        """The ids in the order of the rows, each once."""
        offsets = np.frombuffer(id_offsets, dtype="<i8")
        is_rising = bool((offsets[1:] >= offsets[:-1]).all())
        if not is_rising or offsets[:1].tolist() != [0] or offsets[-1] != len(id_bytes):
            raise BundleError(
                f"{self.where}: id_offsets must rise from 0 to {len(id_bytes)}, the size of id_bytes; {REMEDY}"
            )
        buffers = [None, pa.py_buffer(bytes(id_offsets)), pa.py_buffer(bytes(id_bytes))]
        item_ids = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
        try:
            item_ids.validate(full=True)
        except pa.ArrowInvalid as error:
            raise BundleError(f"{self.where}: the item ids are not UTF-8 ({error}); {REMEDY}") from error
        if pc.count_distinct(item_ids).as_py() != len(item_ids):
            ((repeated, count),) = Counter(item_ids.to_pylist()).most_common(1)
            raise BundleError(f"{self.where}: item {repeated!r} has {count} rows; each item has one; {REMEDY}")
        return item_ids

    def check_finite(self, first_not_finite: int | None, item_ids: Values) -> None:
        """`first_not_finite` is the first row with values that are NaN or infinite."""
        if first_not_finite is not None:
            raise BundleError(
                f"{self.where}: the embedding of item {item_ids[first_not_finite].as_py()!r} has values that are NaN "
                f"or infinite; {REMEDY}"
            )


def _read_held(file: OpenedFile, rules: _Format, verify: Verify | None) -> FeatureFile:
    content = file.content()
    if verify is not None:
        verify(hashlib.sha256(content).hexdigest())
    header = parse_header(content, file.size)
    rules.check_names(header)
    offsets, texts = (header.tensors[name] for name in ("id_offsets", "id_bytes"))
    item_ids = rules.item_ids(content[offsets.start : offsets.end], content[texts.start : texts.end])
    place = rules.place(header.tensors["features"], len(item_ids))
    rows = content[place.start : place.start + place.num_rows * place.row_bytes]
    features = np.frombuffer(rows, place.dtype).reshape(place.num_rows, place.dim)
    rules.check_finite(first_not_finite(features), item_ids)
    return FeatureFile(item_ids, features, header.metadata.get(ENCODER))


def _read_stored(file: OpenedFile, rules: _Format, verify: Verify | None) -> FeatureFile:
    sha256 = hashlib.sha256()
    try:
        found = _scan(file, rules, sha256.update)
    except (FormatError, BundleError):
        if verify is not None:  # a file that was modified is reported as such
            verify(file.sha256())
        raise
    if verify is not None:
        verify(sha256.hexdigest())
    return found


def _scan(file: OpenedFile, rules: _Format, consume: Callable[[memoryview], object]) -> FeatureFile:
    """`consume` gets every byte of the file in order."""
    begin = header_bytes(file.read(0, min(LENGTH_BYTES, file.size)), file.size)
    beginning = file.read(0, begin)
    consume(beginning)
    header = parse_header(beginning, file.size)
    rules.check_names(header)
    texts: dict[str, memoryview] = {}
    rows: StoredRows | None = None
    for name, stored in header.tensors.items():
        if name == "features":
            # The number of ids is compared below, as they may follow the rows.
            rows = StoredRows(file, rules.place(stored, stored.shape[0] if stored.shape else 0), consume)
        elif name in _NAMES:
            texts[name] = file.read(stored.start, stored.end - stored.start)
            consume(texts[name])
        else:
            _pass_over(file, stored, consume)
    item_ids = rules.item_ids(texts["id_offsets"], texts["id_bytes"])
    rules.place(header.tensors["features"], len(item_ids))
    assert rows is not None
    rules.check_finite(rows.first_not_finite, item_ids)
    return FeatureFile(item_ids, rows, header.metadata.get(ENCODER))


def _pass_over(file: OpenedFile, stored: StoredTensor, consume: Callable[[memoryview], object]) -> None:
    for start in range(stored.start, stored.end, _PIECE_BYTES):
        consume(file.read(start, min(_PIECE_BYTES, stored.end - start)))
