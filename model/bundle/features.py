"""Image embeddings in a bundle: features.safetensors, and the forms that they are imported from.

The file holds `features` [F, D] (float16 or float32, as given), `id_bytes` uint8 (the item ids' UTF-8 bytes, one after
another) and `id_offsets` int64 [F + 1] (where each id starts and ends). Rows are the items that have an embedding, in
the catalog's order.
"""

# N items of the catalog, F <= N of them with an embedding, D width

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from model.bundle.catalog import Catalog
from model.bundle.columns import Values
from model.errors import BundleError

Progress = Callable[[int, int], None]
"""Called with the number of steps done and of all steps."""

ENCODER = "encoder"
"""Where a file's metadata names the encoder."""

_DTYPES = {"F16": np.float16, "F32": np.float32}


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Embeddings of some items. `encoder` names the image tower that made them, where the file says so."""

    item_ids: tuple[str, ...]
    features: NDArray[np.floating]  # [F, D], float16 or float32
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

    def of(self, catalog: Catalog) -> ItemFeatures:
        """Those of the catalog's items, in its order. Raises BundleError if there are none."""
        row_of = {item_id: row for row, item_id in enumerate(self.item_ids)}
        item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in row_of)
        if not item_ids:
            raise BundleError(
                f"none of the {len(self.item_ids)} features is of an item in the catalog; check the item ids"
            )
        return ItemFeatures(item_ids, self.features[[row_of[item_id] for item_id in item_ids]], self.encoder)


def read_features(source: Path, catalog: Catalog, progress: Progress | None = None) -> ItemFeatures:
    """Embeddings of the catalog's items, from a folder of `<item_id>.npy` or a safetensors file.

    The file is of a bundle's own form, or has beside it `<same name>.ids.txt` with one item id per row.

    Raises BundleError, naming the file, for shapes and types that do not fit and for values that are not finite.
    """
    found = _read_folder(source, catalog, progress) if source.is_dir() else _read_file(source).of(catalog)
    is_finite = np.isfinite(found.features).all(axis=1)
    if not is_finite.all():
        item_id = found.item_ids[int(np.argmin(is_finite))]
        raise BundleError(f"{source.name}: the feature of item {item_id!r} has values that are NaN or infinite")
    return found


def write_features(path: Path, found: ItemFeatures) -> None:
    encoded = [item_id.encode() for item_id in found.item_ids]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(item_id) for item_id in encoded], out=offsets[1:])
    tensors = {
        "features": np.ascontiguousarray(found.features),
        "id_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "id_offsets": offsets,
    }
    save_file(tensors, path, None if found.encoder is None else {ENCODER: found.encoder})


def load_features(path: Path, where: str = "features.safetensors") -> ItemFeatures:
    """Read a file written by `write_features` whole; errors call it `where`."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{where} cannot be read: {error}; write the features anew") from error
    missing = sorted({"features", "id_bytes", "id_offsets"} - set(tensors))
    if missing:
        raise BundleError(f"{where} has no tensor {', '.join(missing)}; write the features anew")
    item_ids = cast("list[str]", _item_ids(tensors["id_bytes"], tensors["id_offsets"], where).to_pylist())
    with safe_open(path, framework="numpy") as file:
        encoder = (file.metadata() or {}).get(ENCODER)
    return ItemFeatures(tuple(item_ids), tensors["features"], encoder)


def check_features(path: Path, dim: int, catalog: Catalog, where: str) -> None:
    """Raise BundleError unless the file holds embeddings of width `dim` of items of the catalog."""
    try:
        with safe_open(path, framework="numpy") as tensors:
            features = tensors.get_slice("features")
            shape, dtype = list(features.get_shape()), features.get_dtype()
            id_bytes, id_offsets = tensors.get_tensor("id_bytes"), tensors.get_tensor("id_offsets")
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{where} cannot be read: {error}; import the features anew") from error
    item_ids = _item_ids(id_bytes, id_offsets, where)
    if shape != [len(item_ids), dim] or dtype not in _DTYPES:
        raise BundleError(
            f"{where}: features is {dtype} {shape}, by domain.json it must be F16 or F32 {[len(item_ids), dim]}; "
            "import features made by the domain's own encoder"
        )
    is_known = pc.is_in(item_ids, catalog.table.column("item_id").cast(item_ids.type).combine_chunks())
    row = pc.index(is_known, value=False).as_py()
    if row >= 0:
        raise BundleError(f"{where}: {item_ids[row].as_py()!r} is not in the catalog; import the features anew")
    if pc.count_distinct(item_ids).as_py() != len(item_ids):
        raise BundleError(f"{where}: an item stands in two rows; import the features anew")


def _item_ids(id_bytes: NDArray[np.uint8], id_offsets: NDArray[np.int64], where: str) -> Values:
    is_partition = (
        id_bytes.dtype == np.uint8
        and id_offsets.dtype == np.int64
        and id_offsets.ndim == 1
        and len(id_offsets) > 0
        and id_offsets[0] == 0
        and id_offsets[-1] == id_bytes.size
        and bool((np.diff(id_offsets) >= 0).all())
    )
    if not is_partition:
        raise BundleError(f"{where}: id_offsets (int64) must rise from 0 to the length of id_bytes (uint8)")
    buffers = [None, pa.py_buffer(id_offsets.tobytes()), pa.py_buffer(id_bytes.tobytes())]
    item_ids = pa.Array.from_buffers(pa.large_string(), len(id_offsets) - 1, buffers)
    try:
        item_ids.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BundleError(f"{where}: the item ids are not UTF-8 ({error}); import the features anew") from error
    return item_ids


def _read_folder(folder: Path, catalog: Catalog, progress: Progress | None) -> ItemFeatures:
    present = {path.stem for path in folder.iterdir() if path.suffix == ".npy"}
    item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in present)
    if not item_ids:
        raise BundleError(f"{folder.name} has no file <item_id>.npy of any item in the catalog; check the names")
    first = _read_row(folder, item_ids[0])
    features = np.empty((len(item_ids), len(first)), dtype=first.dtype)
    for row, item_id in enumerate(item_ids):
        feature = _read_row(folder, item_id)
        if feature.shape != first.shape or feature.dtype != first.dtype:
            raise BundleError(
                f"{folder.name}/{item_id}.npy is {feature.dtype} {feature.shape}, {item_ids[0]}.npy is {first.dtype} "
                f"{first.shape}; all features must be of one encoder and one type"
            )
        features[row] = feature
        if progress is not None:
            progress(row + 1, len(item_ids))
    return ItemFeatures(item_ids, features)


def _read_row(folder: Path, item_id: str) -> NDArray[np.floating]:
    """One embedding, [D]; a leading axis of length 1 is dropped."""
    path = folder / f"{item_id}.npy"
    try:
        feature: NDArray[np.floating] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{folder.name}/{path.name} is not an array that can be read: {error}") from error
    if feature.ndim == 2 and len(feature) == 1:
        feature = feature[0]
    if feature.ndim != 1 or feature.dtype.kind != "f":
        raise BundleError(
            f"{folder.name}/{path.name} is {feature.dtype} {feature.shape}; it must be one vector of floats"
        )
    return _storable(feature)


def _read_file(path: Path) -> ItemFeatures:
    names = path.with_name(f"{path.stem}.ids.txt")
    if not names.is_file():
        if _has_item_ids(path):
            return load_features(path, path.name)
        raise BundleError(
            f"{path.name} needs {names.name} beside it, with one item id per line in the order of its rows"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path.name} is not a safetensors file that can be read: {error}") from error
    if "features" not in tensors:
        raise BundleError(f"{path.name} has no tensor features; it has {', '.join(sorted(tensors)) or 'none'}")
    return ItemFeatures(_read_lines(names), _storable(tensors["features"]))


def _has_item_ids(path: Path) -> bool:
    """Whether the file is of a bundle's own form."""
    try:
        with safe_open(path, framework="numpy") as tensors:
            return "id_bytes" in tensors.keys()  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError):
        return False


def _read_lines(path: Path) -> tuple[str, ...]:
    """Item ids, one per line, each once."""
    try:
        item_ids = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path.name} is not UTF-8: {error}") from error
    seen: set[str] = set()
    for line, item_id in enumerate(item_ids, start=1):
        if item_id in seen:
            raise BundleError(f"{path.name}: line {line} repeats item {item_id!r}; each item has one row")
        seen.add(item_id)
    return tuple(item_ids)


def _storable(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """Double precision, which no encoder computes in, becomes single."""
    return features.astype(np.float32) if features.dtype == np.float64 else features
