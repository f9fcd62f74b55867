"""Ranks items by popularity, for users without a history. Follows the same constraints as a sequential query."""

# N items of the catalog

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.bundle.catalog import TRAINING_INTERACTIONS, Catalog
from model.decoding.leaf_boosts import Boosts
from model.decoding.leaf_groups import first_within_limits
from model.degradation import Degradation
from model.engine.protocol import Ranking
from model.planning.arguments import known_rows, required_rows
from model.planning.domain import ServedDomain
from model.planning.merchandising import plan_boosts, plan_limits
from model.planning.queries import SequentialQuery
from model.planning.rankings import eligibility_of, num_beams_of, sequential_template

SEED_COLUMNS = ("popularity", TRAINING_INTERACTIONS)
"""Numeric columns of the catalog, of which the first that it has is where popularity begins: the shop's own figures, or
what training has counted."""
SEED_EVENTS = 100.0
"""The column's values count as much as this many events now, divided in proportion to them."""

_QUICK_ITEMS = 20_000
"""Ranking more items than this takes long enough to be worth another thread."""

_seeds: WeakKeyDictionary[Catalog, NDArray[np.float64]] = WeakKeyDictionary()


@dataclass(frozen=True)
class PopularItems:
    """A ranking by popularity, and what is to be said of it."""

    ranking: Ranking
    degraded: tuple[Degradation, ...]


def is_quick(domain: ServedDomain) -> bool:
    """Whether `rank_popular` takes a few milliseconds at most."""
    return len(domain.catalog) <= _QUICK_ITEMS


def rank_popular(domain: ServedDomain, query: SequentialQuery, counts: Mapping[str, float]) -> PopularItems:
    """The most popular items that the query allows. `counts` are decayed numbers of events by item.

    Scores are natural logarithms of shares of all events, with one event more for each item, so that they are finite.
    Boosts are added to them, and limits hold. Items of equal scores are in the catalog's order.

    Raises InputError kinds.
    """
    if sequential_template(domain, query).target == "item":
        num_beams_of(query)  # refuses what it would refuse with a history
    notes: list[Degradation] = []
    excluded = known_rows(domain, query.exclude_items, "exclude_items", notes)
    included = None
    if query.include_items is not None:
        included = required_rows(domain, query.include_items, "include_items", notes)
    eligibility = eligibility_of(domain, query, included, excluded, notes)
    boosts = plan_boosts(domain, query, eligibility.base, notes)
    limits = plan_limits(domain, query)
    popularity = _popularity(domain, counts)
    rows = np.sort(domain.trie.rows_of_leaves[np.flatnonzero(eligibility.mask())])
    rows = _in_order(domain, rows, popularity, boosts)
    rows = rows[first_within_limits(domain.leaves_of_rows[rows], limits, query.k)]
    scores = np.log((popularity[rows] + 1.0) / (popularity.sum() + len(popularity)))
    leaves = domain.leaves_of_rows[rows].astype(np.int64)
    boosted = None if boosts is None else scores + boosts.of_leaves(leaves)
    return PopularItems(Ranking(leaves, scores, exact_prefix=0, num_beams=0, boosted=boosted), tuple(notes))


def _in_order(
    domain: ServedDomain, rows: NDArray[np.int64], popularity: NDArray[np.float64], boosts: Boosts | None
) -> NDArray[np.int64]:
    """Catalog rows, best first."""
    if boosts is None:
        return rows[np.argsort(-popularity[rows], kind="stable")]
    nats = boosts.of_leaves(domain.leaves_of_rows[rows].astype(np.int64))
    return rows[np.argsort(-(np.log(popularity[rows] + 1.0) + nats), kind="stable")]


def _popularity(domain: ServedDomain, counts: Mapping[str, float]) -> NDArray[np.float64]:
    """By catalog row: [N]."""
    popularity = _seeds_of(domain.catalog).copy()
    for item_id, count in counts.items():
        row = domain.catalog.row_of(item_id)
        if row is not None:
            popularity[row] += count
    return popularity


def _seeds_of(catalog: Catalog) -> NDArray[np.float64]:
    """[N], of sum SEED_EVENTS, or 0 without a usable column."""
    seeds = _seeds.get(catalog)
    if seeds is None:
        seeds = _seeds[catalog] = _read_seeds(catalog)
    return seeds


def _read_seeds(catalog: Catalog) -> NDArray[np.float64]:
    columns = (catalog.table.column(name) for name in SEED_COLUMNS if name in catalog.table.column_names)
    column = next((each for each in columns if _is_numeric(each.type)), None)
    if column is None:
        return np.zeros(len(catalog))
    values = np.nan_to_num(column.cast(pa.float64()).to_numpy(), posinf=0.0)  # a missing value is NaN
    values = np.maximum(values, 0.0)
    total = float(values.sum())
    return values * (SEED_EVENTS / total) if total else np.zeros(len(catalog))


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
