"""Boosts, limits and rotation of a query become boosts of leaves and groups of leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from model.bundle.catalog import Catalog
from model.decoding.eligibility import LeafMask
from model.decoding.leaf_boosts import MAX_NATS, BoostSpec
from model.decoding.leaf_groups import within_limits
from model.engine.plans import RankingPlan, ScoringPlan
from model.errors import InputError, UnknownColumnError, UnknownItemError
from model.planning.boosts import BoostFactors, DomainBoosts, check_rules, factor_of
from model.planning.domain import ServedDomain
from model.planning.leaf_columns import LeafColumns
from model.planning.merchandising import MAX_BOOSTS
from model.planning.queries import OfflineDirect, OfflineSequential
from model.planning.rankings import plan_direct, plan_sequential
from model.planning.rotation import Rotation, Shown
from tests.unit.planning.domains import item, row, tiny_domain

HISTORY = OfflineSequential(history=(item(3),), user_id="u7")
DAY = 86_400.0


@pytest.fixture(scope="module")
def domain() -> ServedDomain:
    return tiny_domain()


def test_all_factors_of_an_item_are_multiplied(domain: ServedDomain) -> None:
    boost = BoostFactors(
        columns={"category": {"games": 2.0}, "tags": {"new": 3.0, "red": 5.0}, "price": {"1.25": 7.0}},
        items={item(5): 0.5, item(6): 0.1},
    )
    factors = factors_of(domain, replace(HISTORY, boost=boost))
    assert factors[1] == pytest.approx(2.0 * 3.0)
    assert factors[5] == pytest.approx(3.0 * 5.0 * 7.0 * 0.5)
    assert factors[6] == pytest.approx(0.1)
    assert factors[8] == pytest.approx(1.0)
    assert factors[10] == 0, "it is not active"


def test_the_domains_boosts_multiply_with_those_of_a_request_that_does_not_decline_them(domain: ServedDomain) -> None:
    ruled = domain.with_rules(
        BoostFactors({"category": {"games": 2.0}, "gone": {"x": 9.0}}, {item(1): 3.0, "gone": 9.0})
    )
    asked = BoostFactors({"category": {"games": 0.25}}, {item(1): 10.0})
    assert factors_of(ruled, HISTORY)[1] == pytest.approx(6.0)
    assert factors_of(ruled, HISTORY)[4] == pytest.approx(2.0)
    assert factors_of(ruled, replace(HISTORY, boost=asked))[1] == pytest.approx(15.0)
    assert factors_of(ruled, replace(HISTORY, boost=asked, domain_boosts=False))[1] == pytest.approx(2.5)
    assert ranking(ruled, replace(HISTORY, domain_boosts=False)).boosts is None
    assert ranking(domain, HISTORY).boosts is None


def test_a_filter_has_tables_of_its_own_which_requests_share(domain: ServedDomain) -> None:
    query = replace(HISTORY, boost=BoostFactors({"category": {"games": 2.0}}))
    filtered = replace(query, where={"category": ("games",)})
    first, second = ranking(domain, filtered).boosts, ranking(domain, filtered).boosts
    assert first is not None
    assert second is not None
    assert first.table is second.table
    assert factors_of(domain, filtered)[1] == pytest.approx(2.0)
    assert factors_of(domain, filtered)[2] == 0
    assert factors_of(domain, query)[2] == 1


def test_tables_are_dropped_when_they_take_too_much_memory(domain: ServedDomain) -> None:
    columns = LeafColumns(domain.catalog, domain.trie)
    boosts = DomainBoosts(domain.catalog, domain.trie, columns, BoostFactors(), max_bytes=1_000)
    mask = domain.eligible({})
    tables = [boosts.table(BoostSpec((("category", (("games", 1 + number),)),)), mask) for number in range(9)]
    assert boosts.num_tables < len(tables)
    assert boosts.table(tables[-1].spec, mask) is tables[-1]


def test_boosts_stay_within_what_float32_can_prove(domain: ServedDomain) -> None:
    boost = BoostFactors({"category": {"games": 1e6}, "tags": {"new": 1e6}, "price": {"0.25": 1e6}}, {item(1): 1e6})
    assert factors_of(domain, replace(HISTORY, boost=boost))[1] == pytest.approx(math.exp(MAX_NATS), rel=1e-5)


@pytest.mark.parametrize(
    ("boost", "reason"),
    [
        (BoostFactors({"price": {"dear": 2.0}}), r"boost.columns.price: 'dear' is no number; the column has numbers"),
        *(
            (BoostFactors({"price": {odd: 2.0}}), "is no number; the column has numbers")
            for odd in ("nan", "inf", "1_0", " 1", "+1", ".5", "1.", "01", "\u0661", "1\n")
        ),
        (
            BoostFactors({"colour": {"red": 2.0}}),
            r"boost.columns.colour: the catalog has no column 'colour'; choose from: ",
        ),
        (
            BoostFactors(items={f"i{n}": 2.0 for n in range(MAX_BOOSTS + 1)}),
            r"factors of 1001 items, the limit is 1000",
        ),
        (
            BoostFactors({"category": {str(n): 2.0 for n in range(600)}, "tags": {str(n): 2.0 for n in range(600)}}),
            r"boost.columns has factors of 1200 values, the limit is 1000; send fewer",
        ),
    ],
)
def test_boosts_that_make_no_sense_are_refused(domain: ServedDomain, boost: BoostFactors, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        plan_sequential(domain, replace(HISTORY, boost=boost))


def test_columns_of_numbers_and_booleans_have_values_as_in_json() -> None:
    rows = [
        {"item_id": item(n), "index": str(n), "size": n % 3, "sold": n % 2 == 0, "brand": None if n == 4 else "Lego"}
        for n in range(1, 9)
    ]
    domain = tiny_domain(catalog=Catalog.from_rows(rows))
    boost = BoostFactors({"size": {"2": 3.0, "9": 4.0}, "sold": {"true": 5.0}, "brand": {"Lego": 7.0}})
    query = replace(HISTORY, boost=boost)
    assert [factors_of(domain, query)[n] for n in (1, 2, 3, 4)] == pytest.approx([7, 105, 7, 5])
    with pytest.raises(InputError, match=r"'yes' is not \"true\" or \"false\""):
        plan_sequential(domain, replace(HISTORY, boost=BoostFactors({"sold": {"yes": 2.0}})))
    with pytest.raises(InputError, match=r"'1.5' is no number; the column has integers"):
        plan_sequential(domain, replace(HISTORY, boost=BoostFactors({"size": {"1.5": 2.0}})))


def test_a_value_that_a_list_has_twice_counts_once() -> None:
    tags: list[list[str | None] | None] = [["new", "red", "new"], None, [], ["red", None, "red"]]
    rows = [{"item_id": item(n), "index": str(n), "tags": tags[n - 1]} for n in range(1, 5)]
    domain = tiny_domain(catalog=Catalog.from_rows(rows))
    query = replace(HISTORY, boost=BoostFactors({"tags": {"new": 3.0, "red": 5.0}}), max_per={"tags": 1})
    assert [factors_of(domain, query)[n] for n in (1, 2, 3, 4)] == pytest.approx([15, 1, 1, 5])
    groups = ranking(domain, query).limits[0].groups()
    assert [len(groups.of_leaf(int(domain.leaves_of_rows[row(n)]))) for n in (1, 2, 3, 4)] == [2, 0, 0, 1]


def test_boosted_items_that_are_not_in_the_catalog_are_noted(domain: ServedDomain) -> None:
    plan = ranking(domain, replace(HISTORY, boost=BoostFactors(items={"none": 2.0, item(1): 2.0})))
    (note,) = plan.degraded
    assert note.detail == "1 of boost.items omitted, not in the catalog: none"


@pytest.mark.parametrize("factor", [0, -1, 1e-7, 2e6, float("nan"), float("inf"), True, "2", None])
def test_a_factor_is_a_positive_number_within_bounds(factor: object) -> None:
    with pytest.raises(ValueError, match="a factor must be a number from 1e-06 to 1e"):
        factor_of(factor)
    assert factor_of(2) == 2.0


def test_rules_are_checked_against_the_catalog(domain: ServedDomain) -> None:
    check_rules(BoostFactors({"category": {"none of these": 2.0}}, {item(1): 2.0}), domain.boosts, domain.catalog)
    with pytest.raises(UnknownItemError, match="item 'gone' is not in the catalog; add it first, or leave it out"):
        check_rules(BoostFactors(items={"gone": 2.0}), domain.boosts, domain.catalog)
    with pytest.raises(UnknownColumnError, match=r"boosts.columns.gone"):
        check_rules(BoostFactors({"gone": {"x": 2.0}}), domain.boosts, domain.catalog)


def test_limits_count_items_by_the_values_of_a_column(domain: ServedDomain) -> None:
    plan = ranking(domain, replace(HISTORY, max_per={"category": 1, "tags": 2}))
    assert [(limit.column, limit.most) for limit in plan.limits] == [("category", 1), ("tags", 2)]
    leaves = [int(domain.leaves_of_rows[row(number)]) for number in (1, 4, 3, 2, 5)]  # games, games, dolls, puzzles …
    assert within_limits(leaves, plan.limits[:1], 5) == [0, 2, 3]
    tags = plan.limits[1].groups()
    assert [len(tags.of_leaf(int(domain.leaves_of_rows[row(number)]))) for number in (1, 2, 5)] == [1, 0, 2]
    with pytest.raises(UnknownColumnError, match=r"max_per.colour: the catalog has no column 'colour'"):
        plan_sequential(domain, replace(HISTORY, max_per={"colour": 1}))


def test_candidates_that_are_scored_have_boosts_and_limits_too(domain: ServedDomain) -> None:
    query = OfflineDirect(candidates=(item(1), item(2)), user_id="u7", template="B-1", max_per={"category": 1})
    plan = plan_direct(domain, replace(query, boost=BoostFactors({"category": {"games": 2.0}})))
    assert isinstance(plan, ScoringPlan)
    assert plan.boosts is not None
    assert np.exp(plan.boosts.of_leaves(np.array(plan.leaves))).tolist() == pytest.approx([2.0, 1.0])
    assert [limit.column for limit in plan.limits] == ["category"]
    (part,) = plan.parts(1)
    assert (part.boosts, part.limits) == (plan.boosts, plan.limits)


def test_what_was_shown_counts_less_and_fades() -> None:
    shown = (Shown("a", 0.0), Shown("b", DAY / 2), Shown("a", DAY), Shown("c", -DAY / 4), Shown("d", 2 * DAY))
    rotation = Rotation(0.25, DAY, now=DAY, recently_shown=shown)
    assert rotation.factors() == pytest.approx({"a": 0.25, "b": 0.5, "d": 0.25}), "the last time counts; c has faded"
    assert Rotation(0.25, DAY, now=9 * DAY, recently_shown=shown).factors() == {}


def test_a_rotation_lowers_the_items_of_a_plan(domain: ServedDomain) -> None:
    rotation = Rotation(0.25, DAY, now=DAY, recently_shown=(Shown(item(1), DAY), Shown("gone", DAY)))
    boost = BoostFactors({"category": {"games": 2.0}})
    for query, expected in [(HISTORY, 0.25), (replace(HISTORY, boost=boost), 0.5)]:
        plan = plan_sequential(domain, replace(query, rotation=rotation))
        assert isinstance(plan, RankingPlan)
        assert plan.degraded == (), "what was shown may have gone"
        assert _factors(domain, plan)[1] == pytest.approx(expected)
    assert ranking(domain, HISTORY).boosts is None


def ranking(domain: ServedDomain, query: OfflineSequential) -> RankingPlan:
    plan = plan_sequential(domain, query)
    assert isinstance(plan, RankingPlan)
    return plan


def factors_of(domain: ServedDomain, query: OfflineSequential) -> Mapping[int, float]:
    """The factors of all items, by their numbers; 0 for those outside of the filter."""
    return _factors(domain, ranking(domain, query))


def _factors(domain: ServedDomain, plan: RankingPlan) -> Mapping[int, float]:
    assert plan.boosts is not None
    factors = np.exp(plan.boosts.of_leaves(domain.leaves_of_rows.astype(np.int64)))
    return dict(enumerate(factors.tolist(), start=1))


def test_a_table_of_a_mask_without_members_boosts_nothing(domain: ServedDomain) -> None:
    nobody = LeafMask.of(np.zeros(domain.trie.num_leaves, dtype=np.bool_), b"nobody")
    table = domain.boosts.table(BoostSpec((("category", (("games", 2.0),)),)), nobody)
    assert np.isneginf(table.maxima).all()
