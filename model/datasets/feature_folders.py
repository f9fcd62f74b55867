"""Reader for VIP5's folders of image embeddings: `<type>_features/<split>/<asin>.npy`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.datasets.faults import Faults
from model.errors import DatasetError
from model.progress import Progress

_ENCODER_SUFFIX = "_features"


def read_feature_folders(root: Path, catalog: Catalog, faults: Faults, progress: Progress) -> ItemFeatures:
    """Read the catalog's items from all `<item_id>.npy` at any depth; the first file of an item counts.

    Broken files are skipped and counted in `faults`. Raises DatasetError if no embedding is found, and for folders of
    several encoders.
    """
    encoders = sorted(path for path in root.glob(f"*{_ENCODER_SUFFIX}") if path.is_dir())
    if len(encoders) > 1:
        names = ", ".join(path.name for path in encoders)
        raise DatasetError(
            f"{root} has features of several encoders ({names}); choose one with --features {encoders[0]}"
        )
    found: dict[str, NDArray[np.floating]] = {}
    paths = [path for path in sorted(root.rglob("*.npy")) if catalog.row_of(path.stem) is not None]
    dim: int | None = None
    for number, path in enumerate(paths, start=1):
        progress("reading features", number, len(paths))
        feature = _read(path, dim)
        if isinstance(feature, str):
            faults.add(feature, str(path.relative_to(root)))
            continue
        dim = len(feature)
        known = found.setdefault(path.stem, feature)
        if not np.array_equal(known, feature):
            faults.add("another folder has a different feature of the item", str(path.relative_to(root)))
    if not found:
        reasons = "; ".join(faults.descriptions()) or "no file is named after an item"
        raise DatasetError(f"{root} has no valid <item_id>.npy of any item in the catalog: {reasons}; check the folder")
    item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in found)
    return ItemFeatures(item_ids, np.stack([found[item_id] for item_id in item_ids]))


def _read(path: Path, dim: int | None) -> NDArray[np.floating] | str:
    """One embedding, or the rule that the file breaks. `dim` is the width of the earlier ones."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return "the file is not a readable array"
    is_vector = isinstance(array, np.ndarray) and array.ndim > 0 and array.size == array.shape[-1] > 0
    if not is_vector or array.dtype.kind != "f":
        return "the array is not one vector of floats"
    with np.errstate(over="ignore"):  # values that overflow become infinite, which is checked below
        feature: NDArray[np.floating] = array.reshape(-1).astype(min(array.dtype, np.dtype(np.float32)))
    if not np.isfinite(feature).all():
        return "the feature has values that are NaN or infinite"
    if dim is not None and len(feature) != dim:
        return "the feature has a different width than the others"
    return feature
