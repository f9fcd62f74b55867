"""Popular items follow the constraints of the query, best first, whatever the counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle.catalog import Catalog
from model.degradation import DegradationKind
from model.errors import InputError, UnknownTemplateError
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
    ):
        with pytest.raises(kind):
            rank_popular(DOMAIN, query, {})


def test_nothing_allowed_and_unknown_items_are_said() -> None:
    query = replace(QUERY, include_items=(item(10),), exclude_items=("gone",))
    found = rank_popular(DOMAIN, query, {})
    assert not len(found.ranking.leaves)
    assert {each.kind for each in found.degraded} == {DegradationKind.NO_ELIGIBLE_ITEMS, DegradationKind.UNKNOWN_ITEMS}
