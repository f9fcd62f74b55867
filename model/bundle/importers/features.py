"""Imports image embeddings from forms other than a bundle's own.

These are a folder of `<item_id>.npy`, which `feature_folders.py` reads, and a safetensors file with `features` [F, D]
beside `<same name>.ids.txt`, which has one item id per line in the order of the rows.
"""

# N items of the catalog, F rows, D width

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures, open_features
from model.bundle.importers.feature_folders import Rejected, descriptions, read_feature_folder
from model.bundle.joins import Notice, no_notice
from model.bundle.opened_file import OpenedFile
from model.bundle.safetensors_format import LENGTH_BYTES, FormatError, StoredTensor, header_bytes, parse_header
from model.errors import BundleError
from model.progress import Progress, no_progress

_BFLOAT16 = "BF16"
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", _BFLOAT16: ""}


def read_features(
    source: Path, catalog: Catalog, progress: Progress = no_progress, notice: Notice = no_notice
) -> ItemFeatures:
    """Embeddings of the catalog's items, from a folder, or from a file of a bundle's own form or with ids beside it.

    `notice` is told how embeddings and catalog meet. Raises BundleError, naming the file, for shapes and types that do
    not fit and for values that are not finite.
    """
    found = _read_folder(source, catalog, progress, notice) if source.is_dir() else _read_own(source, catalog, notice)
    is_finite = np.isfinite(found.features).all(axis=1)
    if not is_finite.all():
        item_id = found.item_ids[int(np.argmin(is_finite))]
        raise BundleError(f"{source.name}: the embedding of item {item_id!r} has values that are NaN or infinite")
    return found


def _read_folder(folder: Path, catalog: Catalog, progress: Progress, notice: Notice) -> ItemFeatures:
    found = read_feature_folder(folder, catalog, progress)
    if found.rejected:
        raise BundleError(
            f"{folder.name}/{descriptions(found.rejected)}; correct or remove {_files(found.rejected)}, or let "
            "vip5 features import leave out what breaks a rule"
        )
    notice(str(found.join))
    return found.features


def _files(rejected: Sequence[Rejected]) -> str:
    return "this file" if len(rejected) == 1 else f"these and other files, {len(rejected):,} in all"


def _read_own(path: Path, catalog: Catalog, notice: Notice) -> ItemFeatures:
    every = _read_file(path)
    found = every.of(catalog)
    notice(str(every.join(catalog)))
    return found


def _read_file(path: Path) -> ItemFeatures:
    ids = path.with_name(f"{path.stem}.ids.txt")
    try:
        file = OpenedFile(path)
        header = parse_header(
            file.read(0, header_bytes(file.read(0, min(LENGTH_BYTES, file.size)), file.size)), file.size
        )
        stored = header.tensors.get("features")
        if stored is None:
            names = ", ".join(sorted(header.tensors)) or "none"
            raise BundleError(f"{path.name} has no tensor features; it has {names}")
        if not ids.is_file() and "id_bytes" in header.tensors:
            return open_features(file, path.name, None)
        if stored.dtype not in _FLOATS:
            raise BundleError(f"{path.name}: features is of type {stored.dtype}; it must be F16, BF16 or F32")
        features = _values(file.read(stored.start, stored.end - stored.start), stored)
    except (FormatError, OSError) as error:
        raise BundleError(f"{path.name} cannot be read as a safetensors file: {error}") from error
    if not ids.is_file():
        raise BundleError(f"{path.name} needs {ids.name} beside it, with one item id per line in the order of its rows")
    item_ids = _read_lines(ids)
    if features.ndim != 2 or len(features) != len(item_ids):
        raise BundleError(
            f"{path.name}: features has shape {features.shape} for the {len(item_ids)} item ids of {ids.name}; it must "
            "have one row for each id"
        )
    return ItemFeatures(item_ids, features)


def _values(content: memoryview, stored: StoredTensor) -> NDArray[np.floating]:
    """The tensor, as float32 unless it is float16: numpy has no bfloat16, and no encoder computes in float64."""
    if stored.dtype == _BFLOAT16:
        words = np.frombuffer(content, dtype="<u2").astype(np.uint32) << 16
        return words.view(np.float32).reshape(stored.shape)
    values: NDArray[np.floating] = np.frombuffer(content, dtype=_FLOATS[stored.dtype]).reshape(stored.shape)
    return values.astype(np.float32) if stored.dtype == "F64" else values


def _read_lines(path: Path) -> tuple[str, ...]:
    """Item ids, one per line, each once; a byte order mark and blanks around ids are no part of them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path.name} is not UTF-8: {error}") from error
    item_ids = [line.strip() for line in lines]
    seen: set[str] = set()
    for line, item_id in enumerate(item_ids, start=1):
        if item_id in seen:
            raise BundleError(f"{path.name}: line {line} repeats item {item_id!r}; each item has one row")
        seen.add(item_id)
    return tuple(item_ids)
