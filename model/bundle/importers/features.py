"""Imports image embeddings from forms other than a bundle's own.

These are a folder of `<item_id>.npy`, and a safetensors file with `features` [F, D] beside `<same name>.ids.txt`, which
has one item id per line in the order of the rows.
"""

# N items of the catalog, F rows, D width

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures, load_features
from model.errors import BundleError
from model.progress import Progress, no_progress

_FLOATS = ("F16", "F32", "F64")


def read_features(source: Path, catalog: Catalog, progress: Progress = no_progress) -> ItemFeatures:
    """Embeddings of the catalog's items, from a folder, or from a file of a bundle's own form or with ids beside it.

    Raises BundleError, naming the file, for shapes and types that do not fit and for values that are not finite.
    """
    found = _read_folder(source, catalog, progress) if source.is_dir() else _read_file(source).of(catalog)
    is_finite = np.isfinite(found.features).all(axis=1)
    if not is_finite.all():
        item_id = found.item_ids[int(np.argmin(is_finite))]
        raise BundleError(f"{source.name}: the embedding of item {item_id!r} has values that are NaN or infinite")
    return found


def _read_folder(folder: Path, catalog: Catalog, progress: Progress) -> ItemFeatures:
    present = {path.stem for path in folder.iterdir() if path.suffix == ".npy"}
    item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in present)
    if not item_ids:
        raise BundleError(f"{folder.name} has no file <item_id>.npy for any item of the catalog; check the names")
    first = _read_row(folder, item_ids[0])
    features = np.empty((len(item_ids), len(first)), dtype=first.dtype)
    for row, item_id in enumerate(item_ids):
        feature = _read_row(folder, item_id)
        if feature.shape != first.shape or feature.dtype != first.dtype:
            raise BundleError(
                f"{folder.name}/{item_id}.npy is {feature.dtype} {feature.shape}, {item_ids[0]}.npy is {first.dtype} "
                f"{first.shape}; all embeddings must be of one encoder and one type"
            )
        features[row] = feature
        progress("reading features", row + 1, len(item_ids))
    return ItemFeatures(item_ids, features)


def _read_row(folder: Path, item_id: str) -> NDArray[np.floating]:
    """One embedding, [D]; a leading axis of length 1 is dropped."""
    path = folder / f"{item_id}.npy"
    try:
        feature: NDArray[np.floating] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{folder.name}/{path.name} is not a readable array: {error}") from error
    if feature.ndim == 2 and len(feature) == 1:
        feature = feature[0]
    if feature.ndim != 1 or feature.dtype.kind != "f":
        raise BundleError(
            f"{folder.name}/{path.name} is {feature.dtype} {feature.shape}; it must be one vector of floats"
        )
    return _storable(feature)


def _read_file(path: Path) -> ItemFeatures:
    ids = path.with_name(f"{path.stem}.ids.txt")
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = tensors.keys()
            if "features" not in names:
                raise BundleError(f"{path.name} has no tensor features; it has {', '.join(sorted(names)) or 'none'}")
            if not ids.is_file() and "id_bytes" in names:
                return load_features(path, path.name)
            dtype = tensors.get_slice("features").get_dtype()
            if dtype not in _FLOATS:
                raise BundleError(f"{path.name}: features is of type {dtype}; it must be F16 or F32")
            features = tensors.get_tensor("features")
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path.name} cannot be read as a safetensors file: {error}") from error
    if not ids.is_file():
        raise BundleError(f"{path.name} needs {ids.name} beside it, with one item id per line in the order of its rows")
    item_ids = _read_lines(ids)
    if features.ndim != 2 or len(features) != len(item_ids):
        raise BundleError(
            f"{path.name}: features has shape {features.shape} for the {len(item_ids)} item ids of {ids.name}; it must "
            "have one row for each id"
        )
    return ItemFeatures(item_ids, _storable(features))


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
    """Converts double precision, which no encoder computes in, to single."""
    return features.astype(np.float32) if features.dtype == np.float64 else features
