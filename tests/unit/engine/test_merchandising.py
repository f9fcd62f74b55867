"""Boosts and limits in all engines: against the scores of all items, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.launches import count_launches
from model.decoding.leaf_boosts import BoostTable
from model.decoding.leaf_groups import within_limits
from model.engine import boost_tables
from model.engine.boost_tables import BoostTables
from model.engine.captured.buckets import Bucket
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import rank
from model.engine.onnx.executor import OnnxExecutor
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import Engine, Ranking
from model.engine.scores import ranking_of_scores
from model.planning.queries import OfflineDirect
from model.planning.rankings import plan_direct
from tests.unit.decoding.tables import build_trie
from tests.unit.engine.rankings import LAYOUTS, Served, assert_same, merchandised, random_plans

TRIES = settings(max_examples=12, deadline=None, derandomize=True)
MORE_BEAMS = 200
"""As many as a level has nodes."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("merchandising"), LAYOUTS)


@pytest.fixture(scope="module")
def plain(served: Served) -> DecodingEngine:
    return served.plain()


@pytest.fixture(scope="module")
def captured(served: Served) -> Engine:
    return served.captured()


@pytest.fixture(scope="module")
def onnx(served: Served) -> Engine:
    return served.over(OnnxExecutor)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
@TRIES
def test_rankings_are_those_of_all_scores_as_far_as_they_are_proven(
    served: Served, plain: DecodingEngine, seed: int, count: int
) -> None:
    for plan, ranking in zip(plans := _plans(served, count, seed), rank(plain, plans), strict=True):
        _check_against(_all_scored(plain, plan), plan, ranking)


@given(seed=st.integers(0, 10_000))
@TRIES
def test_certified_rankings_with_boosts_and_limits_are_the_true_ones(
    served: Served, plain: DecodingEngine, seed: int
) -> None:
    plans = [replace(plan, certified=True) for plan in _plans(served, 3, seed)]
    for plan, ranking in zip(plans, rank(plain, plans), strict=True):
        _check_against(_all_scored(plain, plan), plan, ranking)
        assert ranking.exact_prefix == len(ranking.leaves)
        assert not ranking.is_short
        assert len(ranking.leaves) == len(_expected(_all_scored(plain, plan), plan))


@given(seed=st.integers(0, 10_000), count=st.integers(1, 9))
@TRIES
def test_captured_searches_give_the_same_rankings(
    served: Served, plain: DecodingEngine, captured: Engine, seed: int, count: int
) -> None:
    plans = _plans(served, count, seed)
    assert_same(rank(captured, plans), rank(plain, plans))


def test_tables_that_are_too_large_to_copy_are_looked_up_with_patches(
    served: Served, plain: DecodingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [plan for seed in range(4) for plan in _plans(served, 6, seed)]
    copied = rank(plain, plans)
    monkeypatch.setattr(boost_tables, "MOST_COPIED", 0)
    assert_same(rank(plain, plans), copied)


@given(seed=st.integers(0, 10_000))
@TRIES
def test_onnx_gives_the_same_rankings(served: Served, plain: DecodingEngine, onnx: Engine, seed: int) -> None:
    plans = _plans(served, 3, seed)
    assert_same(rank(onnx, plans), rank(plain, plans), tolerance=1e-4)


@pytest.mark.parametrize("make", [Served.plain, Served.captured])
def test_plans_without_boosts_keep_their_answers_beside_others(
    served: Served, make: Callable[[Served], Engine]
) -> None:
    engine = make(served)
    without = [replace(plan, boosts=None, limits=()) for plan in _plans(served, 4, 3)]
    alone = rank(engine, without)
    assert all(ranking.boosted is None for ranking in alone)
    mixed = rank(engine, [*without, *_plans(served, 4, 4)])
    assert_same(mixed[:4], alone)


def test_searches_without_boosts_have_buckets_of_their_own_and_outlive_new_tables(served: Served) -> None:
    engine = served.captured()
    (plan,) = _plans(served, 1, 1)
    engine.search([replace(plan, boosts=None)])
    (kept,) = engine.buckets
    assert not kept.is_boosted
    for seed in range(1, 12):
        engine.search([merchandised(plan, served.domains[plan.slot], 5 * seed + 1)])
    assert kept in engine.buckets
    assert not kept.covers(replace(kept, num_patches=256))
    assert not replace(kept, num_patches=256).covers(kept)


@pytest.mark.parametrize(("rows", "is_mixed"), [(1, False), (8, True)])
def test_a_boosted_search_never_reads_back_and_launches_few_kernels_more(rows: int, *, is_mixed: bool) -> None:
    plain = count_launches(Bucket(rows, 32, 10, 64, is_mixed=is_mixed))
    boosted = count_launches(Bucket(rows, 32, 10, 64, is_mixed=is_mixed, num_patches=256))
    assert boosted.reads == []
    assert boosted.total <= plain.total + 4 * 22


def test_tables_share_a_buffer_whose_places_are_used_again() -> None:
    trie = build_trie([(first, second) for first in range(2, 12) for second in range(2, 12)])
    tables = BoostTables(torch.device("cpu"))
    kept = [_table(trie.intervals, number) for number in range(5)]
    starts = [tables.start(table) for table in kept]
    buffer = tables.buffer
    for number in range(40):
        tables.start(_table(trie.intervals, number))
    assert tables.buffer is buffer or len(tables.buffer) < 12 * len(kept[0].maxima)
    for number, (table, start) in enumerate(zip(kept, starts, strict=True)):
        assert tables.start(table) == start
        assert set(tables.buffer[start : start + len(table.maxima)].tolist()) == {float(number), -np.inf}
    assert tables.buffer[0] == 0


def test_candidates_are_ordered_by_boosted_scores_within_limits(served: Served) -> None:
    domain = served.domains[2]
    query = OfflineDirect(candidates=("item-1", "item-2", "item-3"), user_id="u1", template="B-1", k=2)
    plan = plan_direct(domain, query)
    assert isinstance(plan, ScoringPlan)
    boosts = merchandised(random_plans(served.domains[2:], 1, 1)[0], domain, 1).boosts
    assert boosts is not None
    log_probs = ((-1.0, -1.0), (-1.0, -2.0), (-2.0, -1.0))
    ranking = ranking_of_scores(replace(plan, boosts=boosts, k=3), log_probs)
    assert ranking.boosted is not None
    factors = np.exp(boosts.of_leaves(ranking.leaves))
    assert ranking.boosted == pytest.approx(ranking.scores * factors, rel=1e-6)
    assert ranking.boosted.tolist() == sorted(ranking.boosted.tolist(), reverse=True)
    assert ranking.exact_prefix == 3


def _plans(served: Served, count: int, seed: int) -> list[RankingPlan]:
    plans = random_plans(served.domains, count, seed)
    return [merchandised(plan, served.domains[plan.slot], seed + place) for place, plan in enumerate(plans)]


def _all_scored(engine: DecodingEngine, plan: RankingPlan) -> dict[int, float]:
    """Boosted scores of all eligible leaves, computed from the model's own, best first."""
    wide = replace(plan, k=MORE_BEAMS, num_beams=MORE_BEAMS, boosts=None, limits=(), certified=False)
    (ranking,), _ = engine.search([wide])
    assert len(ranking.leaves) == plan.eligibility.num_eligible
    scores = ranking.scores
    if plan.boosts is not None:
        lengths = np.array([_length(engine, plan, leaf) for leaf in ranking.leaves.tolist()])
        scores = scores + plan.boosts.of_leaves(ranking.leaves) / lengths**plan.length_penalty
    return dict(sorted(zip(ranking.leaves.tolist(), scores.tolist(), strict=True), key=lambda each: -each[1]))


def _length(engine: DecodingEngine, plan: RankingPlan, leaf: int) -> int:
    """Number of nodes above a leaf."""
    trie = engine._arena.tries[plan.slot]
    return int(((trie.leaf_lo <= leaf) & (leaf < trie.leaf_hi)).sum()) - 1


def _expected(scores: dict[int, float], plan: RankingPlan) -> list[int]:
    leaves = list(scores)
    return [leaves[place] for place in within_limits(leaves, plan.limits, plan.k)]


def _check_against(scores: dict[int, float], plan: RankingPlan, ranking: Ranking) -> None:
    found = ranking.scores if ranking.boosted is None else ranking.boosted
    assert (ranking.boosted is None) == (plan.boosts is None)
    assert found == pytest.approx([scores[leaf] for leaf in ranking.leaves.tolist()], abs=1e-4)
    proven = _expected(scores, plan)[: ranking.exact_prefix]
    assert found[: ranking.exact_prefix] == pytest.approx([scores[leaf] for leaf in proven], abs=1e-4)
    assert list(ranking.leaves) == [leaf for leaf in ranking.leaves if plan.eligibility.admits(np.array([leaf]))[0]]


def _table(intervals: object, value: float) -> BoostTable:
    num_leaves = intervals.num_leaves  # type: ignore[attr-defined]
    return BoostTable(intervals, lambda: np.full(num_leaves, value, dtype=np.float32))  # type: ignore[arg-type]
