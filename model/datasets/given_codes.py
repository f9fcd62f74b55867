"""Ready codes of items, as others publish them, as identifiers of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from model.bundle.codebook import Codebook
from model.bundle.joins import Names
from model.datasets.dataset import Dataset
from model.datasets.faults import Faults
from model.datasets.semantic import first_word_for, last_codes, num_last_for, trained_items, with_codes
from model.datasets.text_lines import Source, opened
from model.errors import DatasetError

_MOST_CODES = 1 << 16


def index_with_codes(
    dataset: Dataset, path: Path, variant: str | None, datamaps: Path | None, first_word: int = 100, seed: int = 0
) -> Dataset:
    """The dataset with identifiers of codes in a JSON file.

    If no two items have the same codes, the last one of each becomes its last code; else a last code by lot is added.

    The file maps item ids to lists of codes, or, with `datamaps` (JSON with `id2item`), has a list of such lists of
    which row n - 1 belongs to the item with the number n; both may be below `variants` and a `variant`'s name. Either
    may be gzipped. There are no centres in it, so embeddings of new items say nothing about their codes.
    Raises DatasetError naming what is missing.
    """
    codes = _by_item(dataset, _variant(_json(path), variant, path.name), datamaps, path.name)
    matrix = np.array([codes[item_id] for item_id in dataset.catalog.item_ids], dtype=np.int64)
    if matrix.ndim != 2 or matrix.shape[1] < 2 or matrix.min() < 0 or matrix.max() >= _MOST_CODES:
        raise DatasetError(f"{path.name}: codes must be 2 or more numbers from 0 to {_MOST_CODES - 1} for each item")
    counts = np.unique(matrix, axis=0, return_counts=True)[1]
    is_told_apart = counts.max() == 1
    paths = matrix[:, :-1] if is_told_apart else matrix
    num_last = int(matrix[:, -1].max()) + 1 if is_told_apart else num_last_for(int(counts.max()))
    sizes = tuple((paths.max(axis=0) + 1).tolist())
    every, places = np.unique(paths, axis=0, return_inverse=True)
    trained = np.unique(places[trained_items(dataset)])
    codebook = Codebook(
        sizes, num_last, first_word_for(first_word, sum(sizes) + num_last), every[trained].astype(np.int32)
    )
    lasts = matrix[:, -1].tolist() if is_told_apart else last_codes(places.reshape(-1), num_last, seed)
    return with_codes(dataset, codebook, paths, lasts)


def _json(path: Path) -> object:
    try:
        with opened(Source(path, Faults())) as (stream, _):
            return msgspec.json.decode(stream.read())
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path.name} is not readable JSON: {error}; get the file again from its source") from error


def _variant(found: object, variant: str | None, name: str) -> object:
    variants = found.get("variants") if isinstance(found, dict) else None
    if not isinstance(variants, dict):
        if variant is not None:
            raise DatasetError(f"{name} has no variants; leave --variant out")
        return found
    if variant not in variants:
        raise DatasetError(f"{name} has the variants {', '.join(variants)}, not {variant!r}; choose one with --variant")
    return variants[variant]


def _by_item(dataset: Dataset, found: object, datamaps: Path | None, name: str) -> Mapping[str, Sequence[int]]:
    """Codes by the dataset's item ids. Raises DatasetError for an item without."""
    if isinstance(found, list):
        if datamaps is None:
            raise DatasetError(f"{name} has codes by item number; give --datamaps, which says whose numbers these are")
        maps = _json(datamaps)
        names = maps.get("id2item") if isinstance(maps, dict) else None
        if not isinstance(names, dict):
            raise DatasetError(f"{datamaps.name} has no id2item, from item numbers to ids; give another file")
        found = {names[str(number)]: codes for number, codes in enumerate(found, start=1) if str(number) in names}
    if not isinstance(found, dict):
        raise DatasetError(f"{name} must map item ids to lists of codes, or be a list of such lists")
    ids = Names(dataset.catalog.item_ids)
    codes = {ids.find(item_id) or item_id: each for item_id, each in found.items()}
    missing = [item_id for item_id in dataset.catalog.item_ids if item_id not in codes]
    if missing:
        raise DatasetError(
            f"{name} has no codes for {len(missing):,} of {len(dataset.catalog):,} items, such as {missing[0]!r}"
        )
    lengths = {len(each) if isinstance(each, list) else 0 for each in codes.values()}
    if len(lengths) != 1 or not all(type(code) is int for each in codes.values() for code in each):
        raise DatasetError(f"{name}: every item must have a list of as many codes, integers, as the others")
    return codes
