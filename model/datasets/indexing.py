"""Choosing item identifiers, the texts that a model is trained to generate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from model.bundle.catalog import Catalog
from model.bundle.joins import Names
from model.datasets.clustering import Tree, item_paths
from model.datasets.dataset import Dataset, Sequences
from model.datasets.faults import Faults
from model.datasets.text_lines import Source, numbered_lines
from model.errors import DatasetError
from model.progress import Progress, no_progress

Method = Literal["sequential", "random", "collaborative"]


def index_items(dataset: Dataset, method: Method, tree: Tree, progress: Progress = no_progress) -> Dataset:
    """The dataset with identifiers made by `method`; `tree` has the seed, and the shape of collaborative ones."""
    num_items = len(dataset.catalog)
    if method == "sequential":
        numbers = _by_appearance(dataset.sequences, num_items)
        indices = [str(number) for number in numbers]
    elif method == "random":
        indices = [str(number) for number in np.random.default_rng(tree.seed).permutation(num_items) + 1]
    else:
        indices = _collaborative(dataset, tree, progress)
    return _with_indices(dataset, indices, method)


def give_indices(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with identifiers from a file of lines `item_id<TAB>index`, one for every item.

    Raises DatasetError naming the line for a broken line, and for two items with one identifier.
    """
    names = Names(dataset.catalog.item_ids)
    index_of: dict[str, str] = {}
    for name, index in _read_indices(path).items():
        index_of.setdefault(names.find(name) or name, index)
    missing = [item_id for item_id in dataset.catalog.item_ids if item_id not in index_of]
    if missing:
        raise DatasetError(
            f"{path.name} has no index for {len(missing):,} of {len(dataset.catalog):,} items, such as {missing[0]!r}; "
            "add a line item_id<TAB>index for each"
        )
    unknown = index_of.keys() - set(dataset.catalog.item_ids)
    if unknown:
        raise DatasetError(
            f"{path.name} has {len(unknown):,} items that are not in the dataset, such as {min(unknown)!r}; remove "
            "them, or check that the ids are the dataset's item_id"
        )
    return _with_indices(dataset, [index_of[item_id] for item_id in dataset.catalog.item_ids], "given")


def _by_appearance(sequences: Sequences, num_items: int) -> list[int]:
    """Numbers from 1 by first appearance in the users' sequences, one user after another; unseen items come last."""
    items, first = np.unique(sequences.items, return_index=True)
    seen = items[np.argsort(first)]
    order = np.concatenate([seen, np.setdiff1d(np.arange(num_items), seen)])
    numbers = np.empty(num_items, dtype=np.int64)
    numbers[order] = np.arange(1, num_items + 1)
    found: list[int] = numbers.tolist()
    return found


def _collaborative(dataset: Dataset, tree: Tree, progress: Progress) -> list[str]:
    """Paths in a tree that is built from training interactions, each number a separate word: `12 3 45`."""
    sequences = dataset.sequences
    histories = [sequences.seen(user, "train") for user in range(len(sequences))]
    paths = item_paths(histories, _categories(dataset.catalog), tree, progress)
    return [" ".join(map(str, path)) for path in paths]


def _categories(catalog: Catalog) -> list[str | None]:
    if "category" not in catalog.table.column_names:
        return [None] * len(catalog)
    return [None if value is None else str(value) for value in catalog.table.column("category").to_pylist()]


def _read_indices(path: Path) -> Mapping[str, str]:
    faults = Faults()
    index_of: dict[str, str] = {}
    for number, line in numbered_lines(Source(path, faults)):
        item_id, _, index = (part.strip() for part in line.partition("\t"))
        if not (item_id and index):
            raise DatasetError(f"{path.name}:{number}: {line!r} is not item_id<TAB>index; write both")
        if item_id in index_of:
            raise DatasetError(f"{path.name}:{number}: item {item_id!r} is listed twice; give it one index")
        index_of[item_id] = " ".join(index.split())
    if faults.counts:
        raise DatasetError(f"{path.name}: {'; '.join(faults.descriptions())}; save it as UTF-8")
    repeated = [index for index, count in Counter(index_of.values()).items() if count > 1]
    if repeated:
        both = [item_id for item_id, index in index_of.items() if index == repeated[0]]
        raise DatasetError(
            f"{path.name}: {both[0]!r} and {both[1]!r} have the same index {repeated[0]!r}; give each item its own"
        )
    return index_of


def _with_indices(dataset: Dataset, indices: list[str], method: str) -> Dataset:
    table = dataset.catalog.table
    place = table.column_names.index("index")
    catalog = Catalog.from_table(table.set_column(place, "index", [indices]), "the catalog")
    return replace(dataset, catalog=catalog, provenance=replace(dataset.provenance, indexing=method), codebook=None)
