"""Popular items follow the constraints of the query, best first, whatever the counts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle.catalog import Catalog
from model.decoding.leaf_groups import within_limits
from model.degradation import DegradationKind
from model.engine.plans import RankingPlan
from model.errors import InputError, UnknownColumnError, UnknownTemplateError
from model.planning.boosts import BoostFactors
from model.planning.domain import ServedDomain
from model.planning.popular import SEED_EVENTS, rank_popular
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from tests.unit.planning.domains import item, tiny_domain

QUERY = OfflineSequential(history=(), k=5)
DOMAIN = tiny_domain()
NUMBERS = range(1, 31)


def ranked(domain: ServedDomain, query: OfflineSequential, counts: dict[str, float]) -> list[str]:
    found = rank_popular(domain, query, counts).ranking
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    return [domain.catalog.item_ids[row] for row in domain.rows_of(found.leaves)]


@settings(max_examples=50, deadline=None)
@given(
    counts=st.dictionaries(st.sampled_from([item(each) for each in NUMBERS] + ["gone"]), st.floats(0.01, 1e6)),
    excluded=st.lists(st.sampled_from(NUMBERS), max_size=5),
    included=st.none() | st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=8),
)
def test_the_best_of_what_is_allowed_is_returned(
    counts: dict[str, float], excluded: list[int], included: list[int] | None
) -> None:
    exclude = tuple(item(each) for each in excluded)
    include = None if included is None else tuple(item(each) for each in included)
    query = replace(QUERY, exclude_items=exclude, include_items=include)
    allowed = plan_sequential(DOMAIN, replace(query, history=(item(1),), exclude_history=False))
    mask = allowed.eligibility.mask()  # type: ignore[union-attr]  # the template is not one of yes and no
    rows = [row for row in range(len(DOMAIN.catalog)) if mask[DOMAIN.leaves_of_rows[row]]]
    best = sorted(rows, key=lambda row: -counts.get(DOMAIN.catalog.item_ids[row], 0.0))[:5]
    assert ranked(DOMAIN, query, counts) == [DOMAIN.catalog.item_ids[row] for row in best]


def factors(keys: list[str], *values: float) -> st.SearchStrategy[dict[str, float]]:
    """Factors whose products are equal only if they are of the same values."""
    return st.dictionaries(st.sampled_from(keys), st.sampled_from(values), max_size=4)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.dictionaries(st.sampled_from([item(each) for each in NUMBERS]), st.integers(1, 9).map(float)),
    categories=factors(["games", "dolls", "no such value"], 1.31, 0.71),
    tags=factors(["new", "red"], 2.17, 0.43),
    items=factors([item(each) for each in NUMBERS], 977_777.7, 0.0137),
    max_per=st.dictionaries(st.sampled_from(["category", "tags"]), st.integers(1, 3)),
    k=st.integers(1, 30),
)
def test_boosts_and_limits_hold_as_they_do_with_a_history(
    counts: dict[str, float],
    categories: dict[str, float],
    tags: dict[str, float],
    items: dict[str, float],
    max_per: dict[str, int],
    k: int,
) -> None:
    boost = BoostFactors({"category": categories, "tags": tags}, items)
    query = replace(QUERY, k=k, num_beams=30, max_per=max_per, boost=boost)
    found = rank_popular(DOMAIN, query, counts).ranking
    plan = plan_sequential(DOMAIN, replace(query, history=(item(1),), exclude_history=False))
    assert isinstance(plan, RankingPlan)
    assert plan.boosts is not None
    assert found.boosted is not None
    rows = [row for row in range(len(DOMAIN.catalog)) if plan.eligibility.mask()[DOMAIN.leaves_of_rows[row]]]
    nats = plan.boosts.of_leaves(DOMAIN.leaves_of_rows[rows].astype(np.int64)).tolist()
    total = sum(counts.values()) + len(DOMAIN.catalog)
    shares = [math.log((counts.get(DOMAIN.catalog.item_ids[row], 0.0) + 1) / total) for row in rows]
    boosted = sorted(zip(shares, nats, rows, strict=True), key=lambda each: (-round(each[0] + each[1], 6), each[2]))
    leaves = [int(DOMAIN.leaves_of_rows[row]) for *_, row in boosted]
    best = [boosted[place] for place in within_limits(leaves, plan.limits, k)]
    assert found.boosted.tolist() == pytest.approx([share + nat for share, nat, _ in best], abs=1e-5)
    assert sorted(DOMAIN.rows_of(found.leaves).tolist()) == sorted(row for *_, row in best)


def test_the_domains_boosts_hold_without_a_history_too() -> None:
    ruled = DOMAIN.with_rules(BoostFactors(items={item(7): 1e6}))
    assert ranked(ruled, replace(QUERY, domain_boosts=False), {})[0] == item(1)
    assert DOMAIN.catalog.item_ids[ruled.rows_of(rank_popular(ruled, QUERY, {}).ranking.leaves)[0]] == item(7)


def test_scores_are_logarithms_of_shares() -> None:
    found = rank_popular(DOMAIN, replace(QUERY, k=100), {item(2): 6.0, item(3): 1.0})
    assert found.ranking.scores[:3].tolist() == pytest.approx([np.log(7 / 37), np.log(2 / 37), np.log(1 / 37)])
    assert (found.ranking.exact_prefix, found.ranking.num_beams) == (0, 0)


def test_a_column_of_the_catalog_is_where_popularity_begins() -> None:
    catalog = DOMAIN.catalog
    popularity = {item(3): 300, item(5): 100, item(7): None}
    rows = [
        {"item_id": item_id, "index": index, "title": "t", "popularity": popularity.get(item_id, -5)}
        for item_id, index in zip(catalog.item_ids, catalog.indices, strict=True)
    ]
    seeded = DOMAIN.with_catalog(Catalog.from_rows(rows))
    assert ranked(seeded, QUERY, {})[:2] == [item(3), item(5)]
    assert ranked(seeded, QUERY, {item(5): SEED_EVENTS / 2 - 1})[:2] == [item(3), item(5)]
    assert ranked(seeded, QUERY, {item(5): SEED_EVENTS / 2 + 1})[:2] == [item(5), item(3)]
    words = DOMAIN.with_catalog(Catalog.from_rows([row | {"popularity": "much"} for row in rows]))
    assert ranked(words, QUERY, {item(9): 1.0})[0] == item(9)


def test_popularity_begins_with_what_training_counted_unless_the_shop_has_its_own_column() -> None:
    numbers = np.zeros(len(DOMAIN.catalog), dtype=np.int64)
    numbers[[3, 8]] = 2, 5
    counted = DOMAIN.catalog.counted(numbers)
    assert ranked(DOMAIN.with_catalog(counted), QUERY, {})[:2] == [counted.item_ids[8], counted.item_ids[3]]
    both = counted.table.append_column("popularity", pa.chunked_array([pa.array(range(len(counted)))]))
    own = DOMAIN.with_catalog(Catalog.from_table(both, "it"))
    assert ranked(own, QUERY, {})[0] == ranked(own, replace(QUERY, k=100), {})[0] != counted.item_ids[8]
    words = counted.table.append_column("popularity", pa.chunked_array([["much"] * len(counted)]))
    assert ranked(DOMAIN.with_catalog(Catalog.from_table(words, "it")), QUERY, {})[0] == counted.item_ids[8]


def test_what_is_refused_with_a_history_is_refused_without_one() -> None:
    for query, kind in (
        (replace(QUERY, template="Z-9"), UnknownTemplateError),
        (replace(QUERY, template="A-7"), InputError),
        (replace(QUERY, num_beams=2), InputError),
        (replace(QUERY, include_items=("gone",)), InputError),
        (replace(QUERY, max_per={"gone": 1}), UnknownColumnError),
        (replace(QUERY, boost=BoostFactors({"gone": {"x": 2.0}})), UnknownColumnError),
    ):
        with pytest.raises(kind):
            rank_popular(DOMAIN, query, {})


def test_nothing_allowed_and_unknown_items_are_said() -> None:
    query = replace(QUERY, include_items=(item(10),), exclude_items=("gone",))
    found = rank_popular(DOMAIN, query, {})
    assert not len(found.ranking.leaves)
    assert {each.kind for each in found.degraded} == {DegradationKind.NO_ELIGIBLE_ITEMS, DegradationKind.UNKNOWN_ITEMS}
