"""Identifiers made of codes of what items look like, are called and are bought with, so that new items have them too.

Codes come from residual k-means over items that are trained on. All other items get the nearest path of codes that such
an item has, because a model gives paths that it has never seen no probability. A last code, by lot, tells items of one
path apart.
"""

# N items, L levels, P paths

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from model.bundle.catalog import Catalog
from model.bundle.codebook import MOST_WORDS, Codebook, Codes, Floats
from model.datasets.dataset import Dataset
from model.datasets.item_vectors import ItemVectors, Weights, item_vectors
from model.datasets.residual import Levels, share_on_paths
from model.datasets.semantic_report import SemanticReport
from model.errors import DatasetError
from model.progress import Progress, no_progress

_LEVELS = 2
_CANDIDATE_SIZES = (4, 8, 16, 32, 64, 128, 256)
_ENOUGH_ON_SEEN = 0.85
_TENTHS = 10
_ENOUGH_HELD_OUT = 500  # items
_ROWS_AT_ONCE = 256
_STARTS, _MANY = 10, 20_000  # of k-means; so many vectors are divided from one start
_FEWEST_LAST, _MOST_LAST = 8, 512


@dataclass(frozen=True)
class SemanticOptions:
    """How codes are made.

    `sizes` are the codes of each level; if they are empty, there are two equal levels, of 4, 8, 16 … 256 codes: the
    last size before one for which less than 85 % of a held-out tenth of the trained items land on paths of the others.
    With `compact`, the last codes of a path are its first ones, in an order by lot, rather than any. `num_last` is the
    number of last codes, by default twice the largest number of items on a path. `num_directions` is
    0 for all directions.
    """

    weights: Weights = field(default_factory=Weights)
    num_directions: int = 0
    sizes: tuple[int, ...] = ()
    num_last: int | None = None
    first_word: int = 100
    seed: int = 0
    compact: bool = False


@dataclass(frozen=True, eq=False)
class SemanticIndex:
    """The dataset with identifiers and their codebook, and what became of the items."""

    dataset: Dataset
    report: SemanticReport


def index_semantically(dataset: Dataset, options: SemanticOptions, progress: Progress = no_progress) -> SemanticIndex:
    """Give all items identifiers of codes. The same options and dataset give the same identifiers.

    Raises DatasetError for a dataset without training purchases or without what a weight asks for.
    """
    with threadpool_limits(1):  # sums in a fixed order
        trained = trained_items(dataset)
        progress("comparing items", 0, None)
        sizes, held_out_on_seen = _held_out(dataset, options, trained, progress)
        found = _with_new_items(
            item_vectors(dataset, options.weights, options.num_directions, trained, options.seed), trained, options
        )
        progress("dividing items into codes", 0, None)
        known = found.vectors[trained & found.is_known]
        levels = Levels.of(known, sizes, options.seed, num_starts=_STARTS if len(known) <= _MANY else 1)
        codes = levels.codes_of(found.vectors)
        seen = np.unique(codes[trained & found.is_known], axis=0)
        places = _placed(codes, found, trained, levels, seen)
    groups = np.bincount(places, minlength=len(seen))
    num_last = options.num_last or num_last_for(int(groups.max()))
    codebook = Codebook(
        sizes=sizes,
        num_last=num_last,
        first_word=first_word_for(options.first_word, sum(sizes) + num_last),
        seen=seen,
        levels=levels.centres if found.projection is not None else (),
        projection=found.projection,
    )
    places = _within_capacity(places, found.vectors, trained, _centres(levels, seen), num_last)
    report = SemanticReport(
        sizes=sizes,
        num_last=num_last,
        num_items=len(places),
        num_trained=int(trained.sum()),
        num_paths=len(seen),
        largest_path=int(np.bincount(places).max()),
        used_codes=tuple(len(np.unique(seen[:, level])) for level in range(len(sizes))),
        held_out_on_seen=held_out_on_seen,
        num_moved=int((~trained & found.is_known & (codes != seen[places]).any(axis=1)).sum()),
        num_unknown=int((~found.is_known).sum()),
        correlations=found.correlations,
    )
    return SemanticIndex(with_codebook(dataset, codebook, places, options.seed, compact=options.compact), report)


def with_codebook(
    dataset: Dataset, codebook: Codebook, places: NDArray[np.int64], seed: int, *, compact: bool = False
) -> Dataset:
    """The dataset with identifiers on paths of the codebook, `places` [N] of `seen`; the last codes are by lot."""
    lasts = last_codes(places, codebook.num_last, seed, compact=compact)
    return with_codes(dataset, codebook, codebook.seen[places], lasts)


def with_codes(dataset: Dataset, codebook: Codebook, paths: NDArray[np.integer], lasts: Sequence[int]) -> Dataset:
    """The dataset with identifiers of these paths [N, L] and last codes [N]."""
    indices = [codebook.index_of(path, last) for path, last in zip(paths.tolist(), lasts, strict=True)]
    table = dataset.catalog.table
    column = table.column_names.index("index")
    catalog = Catalog.from_table(table.set_column(column, "index", [indices]), "the catalog")
    provenance = replace(dataset.provenance, indexing="residual")
    return replace(dataset, catalog=catalog, provenance=provenance, codebook=codebook)


def trained_items(dataset: Dataset) -> NDArray[np.bool_]:
    """Items that a user has bought before the held-out ones, [N]."""
    sequences = dataset.sequences
    bought = np.zeros(len(dataset.catalog), dtype=np.bool_)
    for user in range(len(sequences)):
        bought[sequences.seen(user, "train")] = True
    if not bought.any():
        raise DatasetError(
            f"{dataset.provenance.name} has no training purchase, so no path of codes would be trained; users need 3 "
            "interactions or more"
        )
    return bought


def _held_out(
    dataset: Dataset, options: SemanticOptions, trained: NDArray[np.bool_], progress: Progress
) -> tuple[tuple[int, ...], float | None]:
    """Sizes of the levels, and the share of a held-out tenth of the trained items on paths of the others.

    In a small catalog, which a tenth would say little about, several tenths are held out one after another.
    """
    rows = np.random.default_rng(options.seed).permutation(np.flatnonzero(trained))
    tenths = np.array_split(rows, _TENTHS)[: math.ceil(_ENOUGH_HELD_OUT / max(1, len(rows) // _TENTHS))]
    candidates = [options.sizes] if options.sizes else [(size,) * _LEVELS for size in _CANDIDATE_SIZES]
    if len(rows) < 2 * _TENTHS:
        return candidates[0], None
    parts: list[tuple[Floats, Floats]] = []
    for number, held_out in enumerate(tenths):
        progress("comparing items without a tenth of them", number, len(tenths))
        fitted = trained.copy()
        fitted[held_out] = False
        found = item_vectors(dataset, options.weights, options.num_directions, fitted, options.seed)
        parts.append((found.vectors[fitted & found.is_known], _as_new(found, held_out)))
    chosen, best = candidates[0], _share_on_seen(parts, candidates[0], options.seed)
    for number, sizes in enumerate(candidates[1:], start=1):
        progress("choosing the number of codes", number, len(candidates))
        share = _share_on_seen(parts, sizes, options.seed)
        if share < _ENOUGH_ON_SEEN:
            break
        chosen, best = sizes, share
    return chosen, best


def _share_on_seen(parts: Sequence[tuple[Floats, Floats]], sizes: tuple[int, ...], seed: int) -> float:
    """The share of items on paths of others, of pairs (vectors of the others, vectors of these)."""
    shares = []
    for others, these in parts:
        levels = Levels.of(others, sizes, seed, num_starts=1)
        shares.append(share_on_paths(levels.codes_of(these), levels.codes_of(others)))
    return float(np.average(shares, weights=[max(len(these), 1) for _, these in parts]))


def _with_new_items(found: ItemVectors, trained: NDArray[np.bool_], options: SemanticOptions) -> ItemVectors:
    """With vectors of items that nobody bought as their pictures tell them, if purchases are a part of the vectors."""
    if not options.weights.purchases or found.projection is None or found.embeddings is None:
        return found
    is_new = ~trained & np.asarray(found.embeddings.any(axis=1))
    vectors = found.vectors.copy()
    vectors[is_new] = found.projection.positions(found.embeddings[is_new])
    return replace(found, vectors=vectors, is_known=found.is_known | is_new)


def _as_new(found: ItemVectors, rows: NDArray[np.int64]) -> Floats:
    """Vectors of items as if they were new: by their pictures alone, if pictures tell them."""
    if found.projection is None or found.embeddings is None:
        return found.vectors[rows[found.is_known[rows]]]
    embeddings = found.embeddings[rows]
    return found.projection.positions(embeddings[embeddings.any(axis=1)])


def _placed(
    codes: Codes, found: ItemVectors, trained: NDArray[np.bool_], levels: Levels, seen: Codes
) -> NDArray[np.int64]:
    """The seen path of each item, [N]: its own, or the nearest one for items that are not trained on."""
    place_of = {tuple(path): place for place, path in enumerate(seen.tolist())}
    is_own = trained & found.is_known
    places = np.array([place_of.get(tuple(path), 0) for path in codes.tolist()], dtype=np.int64)
    others, centres = np.flatnonzero(~is_own), _centres(levels, seen)
    for rows in np.array_split(others, max(1, math.ceil(len(others) / _ROWS_AT_ONCE))):
        apart = (centres**2).sum(axis=1) - 2 * found.vectors[rows] @ centres.T
        places[rows] = apart.argmin(axis=1)
    return places


def _within_capacity(
    places: NDArray[np.int64], vectors: Floats, trained: NDArray[np.bool_], centres: Floats, num_last: int
) -> NDArray[np.int64]:
    """The places, with items beyond a path's last codes on the nearest path that has room; trained ones stay first."""
    if len(places) > len(centres) * num_last:
        raise DatasetError(
            f"{len(places):,} items do not fit on {len(centres):,} paths of {num_last} last codes; choose more codes "
            "or more last codes"
        )
    room, kept = np.full(len(centres), num_last), places.copy()
    late: list[int] = []
    for row in np.argsort(~trained, kind="stable").tolist():
        if room[places[row]]:
            room[places[row]] -= 1
        else:
            late.append(row)
    for row in late:
        order = _by_distance(vectors[row], centres)
        kept[row] = order[int(np.argmax(room[order] > 0))]
        room[kept[row]] -= 1
    return kept


def _centres(levels: Levels, seen: Codes) -> Floats:
    total: Floats = np.sum([level[codes] for level, codes in zip(levels.centres, seen.T, strict=True)], axis=0)
    return total


def _by_distance(vector: Floats, centres: Floats) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.argsort(((centres - vector) ** 2).sum(axis=1), kind="stable")
    return order


def last_codes(places: NDArray[np.int64], num_last: int, seed: int, *, compact: bool = False) -> list[int]:
    """A last code for each item; those of one path are different, and the first ones if they are `compact`."""
    chance = np.random.default_rng(seed)
    rows_of: dict[int, list[int]] = {}
    for row, place in enumerate(places.tolist()):
        rows_of.setdefault(place, []).append(row)
    lasts = [0] * len(places)
    for rows in rows_of.values():
        for row, last in zip(
            rows, chance.permutation(len(rows) if compact else num_last)[: len(rows)].tolist(), strict=True
        ):
            lasts[row] = last
    return lasts


def num_last_for(most: int) -> int:
    """The number of last codes if a path has this many items at most: as many again are free."""
    return min(max(_FEWEST_LAST, 2 * most), _MOST_LAST)


def first_word_for(wanted: int, num_words: int) -> int:
    """The wanted number, or a lower one if numbers of more than one token would be needed."""
    return wanted if wanted + num_words <= MOST_WORDS else max(0, min(wanted, MOST_WORDS - num_words))
