"""Exposure against hand-computed values, and against counting by the definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle.features import ItemFeatures
from model.evaluation.exposure import Exposure, Lists, Shelf, exposure, gini, list_columns

NUM_ITEMS = 6
COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
LISTS = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=5, unique=True), min_size=1, max_size=8)


def shelf(vectors: Sequence[Sequence[float]] | None = None, without: Sequence[int] = ()) -> Shelf:
    """Items 0 to 5, of which item i had i of 7 buyers; no embeddings, or some."""
    features, places = None, np.full(NUM_ITEMS, -1, dtype=np.int32)
    if vectors is not None:
        known = [item for item in range(NUM_ITEMS) if item not in without]
        matrix = np.array(vectors, dtype=np.float32)[known]
        features = ItemFeatures(tuple(f"item-{item}" for item in known), matrix)
        places[known] = np.arange(len(known))
    buyers = np.arange(NUM_ITEMS, dtype=np.float64)
    return Shelf(NUM_ITEMS, buyers, 7, np.arange(NUM_ITEMS), features, places)


def lists(ranked: Sequence[Sequence[int]], targets: Sequence[int] | None = None) -> Lists:
    own = [0] * len(ranked) if targets is None else targets
    rows = [np.array(items, dtype=np.int64) for items in ranked]
    return shelf().lists(np.arange(len(ranked)), np.array(own), rows)


def values(found: Exposure) -> dict[str, float]:
    return {name: estimate.value for name, estimate in found.metrics.items()}


def test_figures_of_a_hand_computed_example() -> None:
    vectors = [[1.0, 0], [0, 2.0], [3.0, 0], [-1.0, 0], [1.0, 0], [1.0, 0]]
    found = exposure(shelf(vectors), lists([[0, 1], [0, 2], [0, 3]], targets=[5, 5, 2]), seed=0)
    assert values(found) == pytest.approx(
        {
            "coverage@10": 4 / 6,
            # Counts 0 0 1 1 1 3: the 36 ordered pairs differ by 36 in all, and the mean is 1.
            "gini@10": 36 / (2 * 36 * 1),
            "popularity@10": (0.5 + 1 + 1.5) / 3,
            "popularity-bought": 4,
            "popularity-difference@10": 1 - 4,
            "novelty@10": (3 * 3 + math.log2(8 / 2) + math.log2(8 / 3) + math.log2(8 / 4)) / 6,
            "diversity@10": (1 + 0 + 2) / 3,
        }
    )
    assert (found.num_items, found.num_shown, found.num_without_diversity) == (6, 4, 0)


@given(COUNTS)
def test_the_gini_index_is_the_mean_difference_of_all_pairs(counts: list[int]) -> None:
    num, mean = len(counts), sum(counts) / len(counts)
    by_definition = sum(abs(one - other) for one in counts for other in counts) / (2 * num**2 * mean)
    assert gini(np.array(counts, dtype=np.float64), num) == pytest.approx(by_definition)
    shown = np.array([count for count in counts if count], dtype=np.float64)
    assert gini(shown, num) == pytest.approx(by_definition)


def test_equal_exposure_has_a_gini_index_of_0_and_one_item_alone_of_nearly_1() -> None:
    assert gini(np.full(50, 3.0), 50) == pytest.approx(0)
    assert gini(np.array([9.0]), 50) == pytest.approx(49 / 50)


@settings(max_examples=40, deadline=None)
@given(LISTS, st.sets(st.integers(0, NUM_ITEMS - 1)), st.integers(0, 99))
def test_figures_are_those_of_counting_pairs_and_places(ranked: list[list[int]], without: set[int], seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((NUM_ITEMS, 4)).astype(np.float32).tolist()
    own = shelf(vectors, sorted(without))
    columns = list_columns(own, lists(ranked))
    for place, items in enumerate(ranked):
        assert columns["popularity@10"][place] == pytest.approx(np.mean(items))
        assert columns["novelty@10"][place] == pytest.approx(np.mean([-math.log2((i + 1) / 8) for i in items]))
        embedded = [np.array(vectors[item]) for item in items if item not in without]
        if len(embedded) < 2:
            assert np.isnan(columns["diversity@10"][place])
            continue
        distances = [
            1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            for one, other in itertools.combinations(embedded, 2)
        ]
        assert columns["diversity@10"][place] == pytest.approx(np.mean(distances), abs=1e-5)


def test_lists_without_embeddings_have_no_diversity_and_are_counted() -> None:
    ranked = lists([[0, 1], [2, 3], [4]])
    found = exposure(shelf(), ranked, seed=0)
    assert "diversity@10" not in found.metrics
    assert found.num_without_diversity == 3
    zero: list[list[float]] = [
        [1.0, 0],
        [0, 1.0],
        [0, 0],
        [1.0, 0],
        [1.0, 0],
        [1.0, 0],
    ]  # item 2 has a picture of nothing
    some = exposure(shelf(zero), ranked, seed=0)
    assert some.metrics["diversity@10"].value == pytest.approx(1)
    assert some.num_without_diversity == 2


def test_intervals_of_coverage_and_gini_hold_their_values() -> None:
    rng = np.random.default_rng(4)
    ranked = [rng.choice(NUM_ITEMS, size=2, replace=False).tolist() for _ in range(6)]
    found = exposure(shelf(), lists(ranked), seed=0).metrics
    for name in ("coverage@10", "gini@10"):
        assert 0 <= found[name].low <= found[name].value <= found[name].high <= 1
        assert found[name].low < found[name].high


def test_only_the_first_ten_items_count() -> None:
    own = Shelf(12, np.ones(12), 1, np.arange(12), None, np.full(12, -1, dtype=np.int32))
    long = own.lists(np.array([0]), np.array([0]), [np.arange(12)])
    assert exposure(own, long, seed=0).num_shown == 10
