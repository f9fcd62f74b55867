"""What lists of recommendations are like beside their accuracy: which items they show, how popular, novel and diverse.

Every list is cut after `NUM_ANSWERED` items, and every place of it counts the same.
"""

# N items of the domain, Q lists, K places, B lists of a chunk, U users, X items that are shown, D width

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.bundle.features import ItemFeatures, places_of
from model.evaluation.baselines import training_histories
from model.evaluation.held_out import HeldOut, Rows
from model.evaluation.metrics import Estimate, Floats, mean_estimates, percentiles, resampled_weights
from model.evaluation.options import NUM_ANSWERED
from model.planning.domain import ServedDomain

COVERAGE, GINI = f"coverage@{NUM_ANSWERED}", f"gini@{NUM_ANSWERED}"
POPULARITY, POPULARITY_BOUGHT = f"popularity@{NUM_ANSWERED}", "popularity-bought"
POPULARITY_DIFFERENCE = f"popularity-difference@{NUM_ANSWERED}"
NOVELTY, DIVERSITY = f"novelty@{NUM_ANSWERED}", f"diversity@{NUM_ANSWERED}"
EXPOSURE_METRICS = (COVERAGE, GINI, POPULARITY, POPULARITY_BOUGHT, POPULARITY_DIFFERENCE, NOVELTY, DIVERSITY)

_FEW = 2  # items that a list needs for a distance
_LISTS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Exposure:
    """Of all lists of a template or baseline.

    `num_shown` of the `num_items` that can be returned are in a list. `num_without_diversity` lists have fewer than two
    items with an embedding, and do not count in the diversity.
    """

    num_items: int
    num_shown: int
    num_without_diversity: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True, eq=False)
class Lists:
    """The items recommended to users, and the item that each bought next. Items are rows of the domain's catalog."""

    users: Rows  # [Q]
    targets: Rows  # [Q]
    items: Rows  # [Q, K], best first; -1 where a list has ended

    def among(self, is_in: NDArray[np.bool_]) -> Lists:
        """Some of the lists, [Q]."""
        return Lists(self.users[is_in], self.targets[is_in], self.items[is_in])


@dataclass(frozen=True, eq=False)
class Shelf:
    """The items of a domain: how many users had each in training, and their embeddings."""

    num_returnable: int
    num_buyers: Floats  # [N]
    num_users: int
    rows: Rows  # the domain's row of each item of the dataset
    features: ItemFeatures | None
    places: NDArray[np.int32]  # [N], in `features`; -1 without an embedding

    @classmethod
    def of(cls, held_out: HeldOut, domain: ServedDomain, features: ItemFeatures | None) -> Shelf:
        """Embeddings count here even if the model is asked without images: they measure its answers."""
        catalog, histories = domain.catalog, training_histories(held_out.dataset)
        known = [catalog.row_of(item_id) for item_id in held_out.dataset.catalog.item_ids]
        rows = np.array([row for row in known if row is not None], dtype=np.int64)
        assert len(rows) == len(known), "HeldOut.of has checked that the domain has all items"
        had = np.concatenate([np.zeros(0, dtype=np.int64), *(np.unique(history) for history in histories)])
        return cls(
            num_returnable=int(catalog.is_active.sum()),
            num_buyers=np.bincount(rows[had], minlength=len(catalog)).astype(np.float64),
            num_users=sum(len(history) > 0 for history in histories),
            rows=rows,
            features=features,
            places=np.full(len(catalog), -1, dtype=np.int32) if features is None else places_of(features, catalog),
        )

    def lists(self, users: Rows, targets: Rows, ranked: Sequence[Rows]) -> Lists:
        """`targets` are rows of the dataset, and `ranked` of the domain."""
        items = np.full((len(ranked), NUM_ANSWERED), -1, dtype=np.int64)
        for place, rows in enumerate(ranked):
            items[place, : len(rows)] = rows[:NUM_ANSWERED]
        return Lists(users, self.rows[targets], items)


def exposure(shelf: Shelf, lists: Lists, seed: int) -> Exposure:
    """All figures; those that no list has are left out."""
    columns = list_columns(shelf, lists)
    metrics = _spread(shelf, lists, seed)
    for name, column in columns.items():
        is_known = ~np.isnan(column)
        if is_known.any():
            metrics |= mean_estimates({name: column[is_known]}, lists.users[is_known], seed)
    return Exposure(
        num_items=shelf.num_returnable,
        num_shown=len(np.unique(lists.items[lists.items >= 0])),
        num_without_diversity=int(np.isnan(columns[DIVERSITY]).sum()),
        metrics=metrics,
    )


def list_columns(shelf: Shelf, lists: Lists) -> dict[str, Floats]:
    """What is a mean over lists, [Q] each; NaN for lists that are too short for it."""
    popularity = _mean_of_items(shelf.num_buyers, lists)
    # One user more, who had everything: items that nobody had in training are the most novel, not infinitely so.
    information = -np.log2((shelf.num_buyers + 1) / (shelf.num_users + 1))
    bought = shelf.num_buyers[lists.targets]
    return {
        POPULARITY: popularity,
        POPULARITY_BOUGHT: bought,
        POPULARITY_DIFFERENCE: popularity - bought,
        NOVELTY: _mean_of_items(information, lists),
        DIVERSITY: diversity(shelf, lists),
    }


def gini(counts: Floats, num_items: int) -> float:
    """Gini index of exposure: the mean difference of two items' counts, divided by twice the mean count.

    `counts` are those of the items that are shown at all; the others of `num_items` have none. 0 if all items are shown
    equally often, and (n - 1) / n if one of n has all.
    """
    shown = np.sort(counts[counts > 0])
    places = np.arange(num_items - len(shown) + 1, num_items + 1)
    return float(((2 * places - num_items - 1) * shown).sum() / (num_items * shown.sum()))


def diversity(shelf: Shelf, lists: Lists) -> Floats:
    """Mean of 1 - cosine over the pairs of a list's items with an embedding, [Q]; NaN with fewer than two of them."""
    if shelf.features is None or not len(lists.items):
        return np.full(len(lists.items), np.nan)
    return np.concatenate([_diversity(items, vectors) for items, vectors in _embedded(shelf, lists)])


def _diversity(rows: Rows, vectors: Floats) -> Floats:
    """Of lists [B, K] of rows of `vectors`, which are of length 1 or, where there is none, 0."""
    sums = np.zeros((len(rows), vectors.shape[1]))
    num_embedded = np.zeros(len(rows))
    for place in range(rows.shape[1]):
        of_place = vectors[rows[:, place]]
        sums += of_place
        num_embedded += of_place.any(1)
    has_pairs = num_embedded >= _FEW
    num = np.where(has_pairs, num_embedded, _FEW)
    cosines = ((sums**2).sum(1) - num) / (num * (num - 1))
    return np.where(has_pairs, 1 - cosines, np.nan)


def _embedded(shelf: Shelf, lists: Lists) -> Iterator[tuple[Rows, Floats]]:
    """Chunks of lists, as rows [B, K] of normalised embeddings; the first of these is zeros, for items without one."""
    assert shelf.features is not None
    for start in range(0, len(lists.items), _LISTS_AT_A_TIME):
        items = lists.items[start : start + _LISTS_AT_A_TIME]
        places = np.where(items < 0, -1, shelf.places[items])
        found, rows = np.unique(np.append(places, -1), return_inverse=True)
        vectors = np.zeros((len(found), shelf.features.dim))
        vectors[1:] = shelf.features.rows(found[1:].astype(np.int64))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        yield rows[:-1].reshape(items.shape), np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _mean_of_items(values: Floats, lists: Lists) -> Floats:
    """Mean of the items' values [N] in each list, [Q]; NaN for an empty one."""
    is_listed = lists.items >= 0
    num_listed = is_listed.sum(1)
    sums = np.where(is_listed, values[lists.items], 0.0).sum(1)
    return np.where(num_listed > 0, sums / np.maximum(num_listed, 1), np.nan)


def _spread(shelf: Shelf, lists: Lists, seed: int) -> dict[str, Estimate]:
    """Coverage and Gini index, of all lists together.

    A resample has fewer different users than the sample, and therefore fewer different items: its values are too low
    (coverage) or too high (Gini index) by about the same amount. The interval is that of the resamples, moved by the
    difference between their mean and the value.
    """
    is_listed = lists.items >= 0
    if not is_listed.any():
        return {}
    shown, place = np.unique(lists.items[is_listed], return_inverse=True)
    asked, user = np.unique(lists.users, return_inverse=True)
    holders = np.repeat(user, is_listed.sum(1))
    counts = sparse.csr_array((np.ones(len(place)), (holders, place)), shape=(len(asked), len(shown)))
    resampled = np.array(
        [_coverage_and_gini(weights @ counts, shelf) for weights in resampled_weights(len(asked), seed)]
    )
    values = np.array(_coverage_and_gini(np.ones(len(asked)) @ counts, shelf))
    centred = np.clip(resampled - resampled.mean(0) + values, 0.0, 1.0)
    return {name: percentiles(values[place], centred[:, place]) for place, name in enumerate((COVERAGE, GINI))}


def _coverage_and_gini(counts: Floats, shelf: Shelf) -> tuple[float, float]:
    return float((counts > 0).sum()) / shelf.num_returnable, gini(counts, shelf.num_returnable)
