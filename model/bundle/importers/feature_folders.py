"""Reads folders of image embeddings: `<item_id>.npy`, flat or at any depth, such as VIP5's `<type>_features/<split>/`.

The only reader of such folders. Callers choose whether files that break a rule are an error or are counted.
"""

# D width

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.joins import Join, Names
from model.errors import BundleError
from model.progress import Progress

_ENCODER_SUFFIX = "_features"


@dataclass(frozen=True)
class Rejected:
    """A file that was left out: its path below the folder, the rule that it breaks, and what it has instead."""

    path: str
    rule: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.detail})" if self.detail else self.path


@dataclass(frozen=True, eq=False)
class FeatureFolder:
    """What was read; rows are in the catalog's order. `join` compares the files with the catalog."""

    features: ItemFeatures
    rejected: tuple[Rejected, ...]
    join: Join


def read_feature_folder(root: Path, catalog: Catalog, progress: Progress) -> FeatureFolder:
    """Read the embeddings of the catalog's items; of an item with several files, the first counts.

    All must have the most common width. Raises BundleError if no embedding is found, if two widths are equally common,
    and for folders of several encoders.
    """
    encoders = sorted(path for path in root.glob(f"*{_ENCODER_SUFFIX}") if path.is_dir())
    if len(encoders) > 1:
        names = ", ".join(path.name for path in encoders)
        raise BundleError(
            f"{root} has features of several encoders ({names}); choose one with --features {encoders[0]}"
        )
    owners, unmatched = _owners(root, catalog)
    if not owners:
        raise BundleError(
            f"{root.name} has no file <item_id>.npy for any item of the catalog; check the names"
            + (f": it has {unmatched[0]!r}, and the catalog {catalog.item_ids[0]!r}" if unmatched else "")
        )
    rejected: list[Rejected] = []
    found: dict[str, tuple[str, NDArray[np.floating]]] = {}
    for number, (path, item_id) in enumerate(owners.items(), start=1):
        progress("reading features", number, len(owners))
        place = str(path.relative_to(root))
        feature = _read(path, place)
        if isinstance(feature, Rejected):
            rejected.append(feature)
        elif not np.array_equal(found.setdefault(item_id, (place, feature))[1], feature):
            rejected.append(Rejected(place, "another folder has a different feature of the item"))
    kept = _of_one_width(root, found, rejected)
    item_ids = tuple(item_id for item_id in catalog.item_ids if item_id in kept)
    if not item_ids:
        raise BundleError(
            f"{root} has no valid <item_id>.npy of any item in the catalog: {descriptions(rejected)}; check the folder"
        )
    without = [item_id for item_id in catalog.item_ids if item_id not in kept]
    return FeatureFolder(
        ItemFeatures(item_ids, np.stack([kept[item_id] for item_id in item_ids])),
        tuple(rejected),
        Join(len(catalog), "an embedding", "file", without, unmatched),
    )


def _owners(root: Path, catalog: Catalog) -> tuple[dict[Path, str], list[str]]:
    """The item of each file, files of exactly the item's name first, and the files of no item."""
    names = Names(catalog.item_ids)
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() == ".npy" and path.is_file())
    owners, unmatched = {}, []
    for path in sorted(paths, key=lambda path: not names.has(path.stem)):
        item_id = names.find(path.stem)
        if item_id is None:
            unmatched.append(str(path.relative_to(root)))
        else:
            owners[path] = item_id
    return owners, unmatched


def _of_one_width(
    root: Path, found: Mapping[str, tuple[str, NDArray[np.floating]]], rejected: list[Rejected]
) -> dict[str, NDArray[np.floating]]:
    """The embeddings of the most common width; the others are added to `rejected`."""
    counts = Counter(len(feature) for _, feature in found.values()).most_common(2)
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        widths = {len(feature): place for place, feature in found.values()}
        (first, count), (second, _) = counts
        raise BundleError(
            f"{root.name}: {count} embeddings are {first} wide ({widths[first]}), and {count} are {second} wide "
            f"({widths[second]}); all embeddings must be of one encoder"
        )
    kept = {}
    for item_id, (place, feature) in found.items():
        if len(feature) == counts[0][0]:
            kept[item_id] = feature
        else:
            detail = f"{len(feature)} wide, most are {counts[0][0]} wide"
            rejected.append(Rejected(place, "the feature has a different width than the others", detail))
    return kept


def _read(path: Path, place: str) -> NDArray[np.floating] | Rejected:
    """One embedding, [D]."""
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except Exception:  # noqa: BLE001  # numpy parses headers as Python, and the zip library reads archives
        return Rejected(place, "the file is not a readable array")
    is_vector = isinstance(array, np.ndarray) and array.ndim > 0 and array.size == array.shape[-1] > 0
    if not is_vector or array.dtype.kind != "f":
        return Rejected(place, "the array is not one vector of floats", _kind(array))
    with np.errstate(over="ignore"):  # values that overflow become infinite, which is checked below
        feature: NDArray[np.floating] = array.reshape(-1).astype(min(array.dtype, np.dtype(np.float32)))
    if not np.isfinite(feature).all():
        return Rejected(place, "the feature has values that are NaN or infinite")
    return feature


def _kind(array: object) -> str:
    if not isinstance(array, np.ndarray):
        return "an archive of arrays"
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # as numpy reads bfloat16
        return f"{array.dtype} {array.shape}, perhaps bfloat16, which numpy cannot store; save it as float32"
    return f"{array.dtype} {array.shape}"


def descriptions(rejected: Sequence[Rejected]) -> str:
    """The first file of each rule."""
    first: dict[str, Rejected] = {}
    for each in rejected:
        first.setdefault(each.rule, each)
    return "; ".join(f"{each}: {rule}" for rule, each in first.items())
