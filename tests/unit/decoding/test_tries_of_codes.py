"""Identifiers of codes share their prefixes and have three levels; searches are as exact and as constrained as ever."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.trie_growth import with_identifier
from tests.unit.decoding import test_items
from tests.unit.decoding.searches import CODES, Batch, batches
from tests.unit.decoding.tables import EOS, Path, build_trie
from tests.unit.decoding.test_trie_growth import assert_same

TRIES = settings(max_examples=30, deadline=None, derandomize=True)
PROPERTIES = (
    test_items.test_items_are_eligible_unique_ordered_and_scored_as_by_brute_force,
    test_items.test_an_answer_is_empty_only_if_nothing_is_eligible,
    test_items.test_the_exact_prefix_is_the_true_top,
    test_items.test_with_a_beam_for_every_node_the_whole_ranking_is_the_true_one,
    test_items.test_a_batch_gives_every_row_the_answer_that_it_gets_alone,
    test_items.test_dropping_hopeless_beams_changes_nothing,
)
"""Of any catalog; here of one of codes."""


@given(batches(catalog=CODES))
@TRIES
def test_what_holds_for_any_catalog_holds_for_codes(batch: Batch) -> None:
    for each in PROPERTIES:
        each.hypothesis.inner_test(batch)  # type: ignore[attr-defined]  # what hypothesis wrapped


@given(CODES, st.integers(1, 8))
@TRIES
def test_a_new_item_on_a_known_path_is_one_more_leaf_of_its_path(items: list[Path], num_added: int) -> None:
    first = max(1, len(items) - num_added)
    trie = build_trie(items[:first])
    for row in range(first, len(items)):
        trie = with_identifier(trie, (*items[row], EOS), row)
    assert_same(trie, build_trie(items))
    num_on = defaultdict[Path, int](int)
    for *path, _ in items:
        num_on[tuple(path)] += 1
    starts = np.cumsum([0, 1, *trie.level_widths])
    below = np.diff(trie.first_child[starts[2] : starts[3] + 1])  # children of nodes of two codes
    assert sorted(below.tolist()) == sorted(num_on.values())
