"""Measures of rankings against hand-computed values, against scikit-learn, and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

from model.evaluation.metrics import CUTOFFS, mean_estimates, ranking_statistics

RANKS = st.lists(st.integers(0, 15), min_size=1, max_size=40)


def means(ranks: list[int]) -> dict[str, float]:
    return {name: float(column.mean()) for name, column in ranking_statistics(np.array(ranks)).items()}


def test_figures_of_a_hand_computed_example() -> None:
    found = means([1, 3, 0, 7, 10])
    assert found == pytest.approx(
        {
            "hr@1": 0.2,
            "hr@5": 0.4,
            "hr@10": 0.8,
            "ndcg@1": 0.2,
            "ndcg@5": (1 + 0.5) / 5,
            "ndcg@10": (1 + 0.5 + 1 / 3 + 1 / math.log2(11)) / 5,
            "mrr@10": (1 + 1 / 3 + 1 / 7 + 1 / 10) / 5,
        }
    )


@given(RANKS)
def test_figures_are_shares_and_grow_with_the_cutoff(ranks: list[int]) -> None:
    found = means(ranks)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["hr@1"] == found["ndcg@1"]
    for kind in ("hr", "ndcg"):
        assert found[f"{kind}@1"] <= found[f"{kind}@5"] <= found[f"{kind}@10"]
    for k in CUTOFFS:
        assert found[f"ndcg@{k}"] <= found[f"hr@{k}"]
    assert found["hr@1"] <= found["mrr@10"] <= found["hr@10"]


@given(RANKS, st.data())
def test_a_better_rank_never_lowers_a_figure(ranks: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(ranks) - 1))
    better = [*ranks]
    better[place] = data.draw(st.integers(1, ranks[place] or 15))
    before, after = means(ranks), means(better)
    assert all(after[name] >= before[name] - 1e-12 for name in before)


def test_ndcg_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random((50, 30))
    targets = rng.integers(30, size=50)
    ranks = 1 + (scores > scores[np.arange(50), targets, None]).sum(1)
    relevance = np.eye(30)[targets]
    found = means(ranks.tolist())
    for k in CUTOFFS[1:]:
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score(relevance, scores, k=k))


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    values = np.random.default_rng(2).random(300) < 0.2
    (found,) = mean_estimates({"hits": values.astype(float)}, np.arange(300), seed=5).values()
    reference = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(7))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.01)


def test_intervals_follow_from_the_seed() -> None:
    columns, users = {"x": np.random.default_rng(3).random(50)}, np.arange(50)
    assert mean_estimates(columns, users, seed=1) == mean_estimates(columns, users, seed=1)
    assert mean_estimates(columns, users, seed=1) != mean_estimates(columns, users, seed=2)


def test_several_answers_of_one_user_make_nothing_surer() -> None:
    values, users = np.random.default_rng(4).random(60), np.arange(60)
    once = mean_estimates({"x": values}, users, seed=0)["x"]
    thrice = mean_estimates({"x": np.repeat(values, 3)}, np.repeat(users, 3), seed=0)["x"]
    strangers = mean_estimates({"x": np.repeat(values, 3)}, np.arange(180), seed=0)["x"]
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert strangers.margin < 0.8 * once.margin
