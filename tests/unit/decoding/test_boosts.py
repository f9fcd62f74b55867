"""Searches with boosts against brute force over small catalogs; the table of boosts and what requests change in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.items import EXACTNESS_MARGIN
from model.decoding.leaf_boosts import MAX_NATS, Boosts, BoostTable
from model.decoding.leaf_groups import LeafGroups, Limit, within_limits
from model.decoding.leaf_intervals import NOTHING
from tests.unit.decoding.searches import CATALOGS, Batch, Request, batches
from tests.unit.decoding.tables import Path, build_trie, nodes_by_level

TRIES = settings(max_examples=60, deadline=None, derandomize=True)


@given(batches(has_boosts=True))
@TRIES
def test_boosted_items_are_eligible_unique_ordered_and_scored_as_by_brute_force(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(), strict=True):
        assert all(request.is_eligible(row) for row in found.rows)
        assert bool(found.rows) == bool(batch.best(request))
        assert len(set(found.rows)) == len(found.rows) <= request.wanted
        assert found.scores == sorted(found.scores, reverse=True)
        assert found.scores == pytest.approx(batch.scores(request)[found.rows].tolist(), abs=1e-4, rel=1e-6)
        assert found.model_scores == pytest.approx(batch.model_scores(request)[found.rows].tolist(), abs=1e-4, rel=1e-6)


@given(batches(has_boosts=True))
@TRIES
def test_the_exact_prefix_with_boosts_is_the_true_top(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(), strict=True):
        assert found.scores[: found.exact_prefix] == pytest.approx(
            batch.scores(request)[batch.best(request)[: found.exact_prefix]].tolist(), abs=1e-4, rel=1e-6
        )


@given(batches(has_boosts=True))
@TRIES
def test_with_a_beam_for_every_node_the_boosted_ranking_is_the_true_one(batch: Batch) -> None:
    requests = tuple(_with_a_beam_for_every_node(batch, request) for request in batch.requests)
    wide = Batch(batch.catalogs, requests)
    for request, found in zip(wide.requests, wide.search(prunes_early=False), strict=True):
        best = wide.scores(request)[wide.best(request)[: request.wanted]].tolist()
        assert found.scores == pytest.approx(best, abs=1e-4, rel=1e-6)
        assert found.exact_prefix == len(found.rows)


@given(batches(has_boosts=True, max_requests=4))
@TRIES
def test_a_batch_gives_every_boosted_row_the_answer_that_it_gets_alone(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(prunes_early=False), strict=True):
        (alone,) = batch.alone(request).search(prunes_early=False)
        assert found.scores == pytest.approx(alone.scores, abs=1e-5)
        assert found.exact_prefix == alone.exact_prefix


@given(batches(has_boosts=True))
@TRIES
def test_dropping_hopeless_boosted_beams_changes_nothing(batch: Batch) -> None:
    for dropped, kept in zip(batch.search(prunes_early=True), batch.search(prunes_early=False), strict=True):
        assert dropped.scores == pytest.approx(kept.scores, abs=1e-5)
        certain = [score for score in kept.scores if score > kept.scores[-1] + EXACTNESS_MARGIN]
        assert dropped.exact_prefix <= kept.exact_prefix
        assert min(dropped.exact_prefix, len(certain)) == min(kept.exact_prefix, len(certain))


@given(batches(has_boosts=True))
@TRIES
def test_boosts_of_one_change_no_answer(batch: Batch) -> None:
    plain = Batch(batch.catalogs, tuple(replace(request, boosts=None, extra=()) for request in batch.requests))
    neutral = tuple(
        replace(request, boosts=(0.0,) * len(batch.catalogs[request.catalog]), extra=((0, 0.0),))
        for request in batch.requests
    )
    for boosted, found in zip(Batch(batch.catalogs, neutral).search(), plain.search(), strict=True):
        assert (boosted.rows, boosted.scores, boosted.exact_prefix) == (found.rows, found.scores, found.exact_prefix)
        assert boosted.model_scores == found.scores


def test_a_boost_leads_the_only_beam_to_an_item_below_an_unlikely_prefix() -> None:
    items: list[Path] = [(first, second) for first in (2, 3, 4) for second in (2, 3, 4, 5)]
    request = Request(
        catalog=0, table=lambda prefix: np.array([-9.0, 0, *range(5)]) if not prefix else np.zeros(7), num_beams=1,
        wanted=1, length_penalty=0.0, active=(True,) * 12, exclude=frozenset(), include=None,
        boosts=(0.0,) * 3 + (9.0,) + (0.0,) * 8,
    )  # fmt: skip
    (plain,) = Batch((items,), (replace(request, boosts=None),)).search()
    assert plain.rows[0] >= 8
    (found,) = Batch((items,), (request,)).search()
    assert found.rows == [3]
    assert found.exact_prefix == 1
    (without,) = Batch((items,), (replace(request, exclude=frozenset({3})),)).search()
    assert without.rows == plain.rows, "the boost of an item that is excluded draws no beam"


@given(CATALOGS, st.data())
@TRIES
def test_the_largest_boost_below_every_node_is_that_of_its_eligible_leaves(
    items: list[Path], data: st.DataObject
) -> None:
    trie = build_trie(items)
    num_leaves = trie.num_leaves
    values = np.array(data.draw(st.tuples(*[st.floats(-9, 9, width=16)] * num_leaves)), dtype=np.float32)
    mask = LeafMask.of(np.array(data.draw(st.tuples(*[st.booleans()] * num_leaves))))
    some = st.frozensets(st.integers(0, num_leaves - 1), max_size=4)
    own = sorted(data.draw(some))
    boosts = Boosts(
        BoostTable(trie.intervals, lambda: np.where(mask.is_member, values, NOTHING)),
        np.array(own, dtype=np.int32),
        np.arange(1, len(own) + 1, dtype=np.float32),
    )
    eligibility = Eligibility.of(mask, exclude=data.draw(some), include=data.draw(st.none() | some))
    total = values.copy()
    total[own] += np.arange(1, len(own) + 1)
    table = boosts.table.maxima.copy()
    if eligibility.included is not None:
        table[:] = np.nan
    patches = boosts.patches(eligibility)
    assert patches.sources.tolist() == sorted(set(patches.sources.tolist()))
    table[patches.sources] = patches.values
    for node in range(1, trie.num_nodes):
        below = slice(trie.leaf_lo[node], trie.leaf_hi[node])
        is_eligible = eligibility.mask()[below]
        if is_eligible.any():
            assert table[trie.intervals.sources[node]] == total[below][is_eligible].max()


def test_boosts_of_an_item_add_up_to_a_limit() -> None:
    trie = build_trie([(2,), (3,)])
    boosts = Boosts(
        BoostTable(trie.intervals, lambda: np.array([25, -25], dtype=np.float32)),
        np.array([0, 1], dtype=np.int32),
        np.array([20, -20], dtype=np.float32),
    )
    assert boosts.of_leaves(np.array([0, 1])).tolist() == [MAX_NATS, -MAX_NATS]


def test_limits_take_items_in_order_and_leave_those_without_a_value_alone() -> None:
    single = Limit("category", lambda: LeafGroups(None, np.array([0, 0, 0, 1, -1, -1, -1], dtype=np.int32)), 1)
    assert within_limits(range(7), [single], 10) == [0, 3, 4, 5, 6]
    assert within_limits(range(7), [single], 2) == [0, 3]
    assert within_limits(range(7), [], 3) == [0, 1, 2]


def test_an_item_with_several_values_counts_for_each_of_them() -> None:
    starts = np.array([0, 2, 3, 3, 5])
    tags = Limit("tags", lambda: LeafGroups(starts, np.array([0, 1, 1, 2, 2], dtype=np.int32)), 1)
    assert within_limits(range(4), [tags], 4) == [0, 2, 3]
    other = Limit("category", lambda: LeafGroups(None, np.array([5, 6, 7, 5], dtype=np.int32)), 1)
    assert within_limits(range(4), [tags, other], 4) == [0, 2]


def _with_a_beam_for_every_node(batch: Batch, request: Request) -> Request:
    widest = max(nodes_by_level(batch.catalogs[request.catalog]))
    return replace(request, num_beams=widest, wanted=min(request.wanted, widest))
