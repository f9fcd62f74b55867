"""The captured engine, uncaptured on a CPU, against the engine that runs operator by operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine.captured.buckets import Bucket, Ladder
from model.engine.captured.engine import CapturedEngine
from model.engine.captured.options import CaptureOptions
from model.engine.captured.program import SearchProgram
from model.engine.captured.programs import ProgramCache
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import generate, rank
from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import Placement
from model.errors import EngineError
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineDirect, OfflineExplanation
from model.planning.rankings import plan_direct
from tests.tiny import TINY_LAYOUT
from tests.unit.engine.rankings import (
    LAYOUTS,
    SMALL_LADDER,
    Served,
    assert_same,
    merchandised,
    random_plan,
    random_plans,
)

UNCAPTURED = CaptureOptions("float32", captures=False, ladder=SMALL_LADDER, warm_up=())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("graphs"), LAYOUTS)


@pytest.fixture(scope="module")
def plain(served: Served) -> DecodingEngine:
    return served.plain()


@pytest.fixture(scope="module")
def engine(served: Served) -> CapturedEngine:
    return served.captured()


@given(seed=st.integers(0, 10_000), count=st.integers(1, 9))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_batch_of_any_mix_is_ranked_as_without_static_buffers(
    served: Served, plain: DecodingEngine, engine: CapturedEngine, seed: int, count: int
) -> None:
    plans = random_plans(served.domains, count, seed)
    found = rank(engine, plans)
    expected = rank(plain, plans)
    assert_same(found, expected)


def test_a_work_gets_the_same_answer_whatever_shared_its_buffers_before(served: Served) -> None:
    engine = served.captured()
    first, *others = random_plans(served.domains, 7, seed=5)
    before = rank(engine, [first])
    rank(engine, [first, *others])
    rank(engine, others[:4])
    after = rank(engine, [first])
    assert_same(after, before, tolerance=0)


def test_images_that_are_not_given_are_zeros_and_not_those_of_the_work_before(
    served: Served, plain: DecodingEngine
) -> None:
    engine = served.captured()
    plans = (random_plan(served.domains[2], seed) for seed in range(1, 20))
    plan = next(plan for plan in plans if plan.features[0].size and not plan.certified)
    without = replace(plan, features=(plan.features[0][:0],))
    engine.search([plan])
    assert_same(engine.search([without])[0], plain.search([without])[0])


def test_a_batch_larger_than_the_largest_bucket_takes_turns(
    served: Served, plain: DecodingEngine, engine: CapturedEngine
) -> None:
    plans = random_plans(served.domains, 21, seed=11)
    assert_same(engine.search(plans)[0], plain.search(plans)[0])
    assert all(bucket.num_rows <= 8 for bucket in engine.buckets)


def test_no_work_gives_no_ranking(engine: CapturedEngine) -> None:
    assert rank(engine, []) == []


def test_texts_and_yes_or_no_are_those_of_the_plain_engine(
    served: Served, plain: DecodingEngine, engine: CapturedEngine
) -> None:
    toys = served.domains[2]
    text = _text_plan(toys)
    assert generate(engine, [text]) == generate(plain, [text])
    plan = plan_direct(toys, OfflineDirect(candidates=("item-1", "item-2"), user_id="u1", template="B-1"))
    assert isinstance(plan, ScoringPlan)
    shown = replace(plan, features=(*text.features, *text.features))
    found, expected = engine.score([shown])[0], plain.score([shown])[0]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_bfloat16_engine_finds_nearly_the_scores_of_a_float32_one(served: Served, plain: DecodingEngine) -> None:
    engine = served.captured(replace(UNCAPTURED, precision="bfloat16"))
    plans = [replace(plan, certified=False) for plan in random_plans(served.domains, 8, seed=2)]
    for found, expected in zip(rank(engine, plans), rank(plain, plans), strict=True):
        assert len(found.leaves) == len(expected.leaves)
        assert found.scores == pytest.approx(expected.scores, rel=0.15)
    (generated,) = generate(engine, [_text_plan(served.domains[2])])
    assert generated.token_ids


def test_a_domain_placed_into_a_spare_slot_needs_no_new_banks(served: Served, plain: DecodingEngine) -> None:
    engine = served.captured(UNCAPTURED)
    plan = random_plan(served.domains[2], 1)
    expected = rank(engine, [plan])
    dropped = engine.counts.dropped
    slots = engine.num_slots
    engine.place(slots - 1, _placement(served, 0))
    moved = [_moved(each, slots - 1) for each in random_plans(served.domains[:1], 4, seed=3)]
    found = rank(engine, [*moved, plan])
    originals = [_moved(each, 0) for each in moved]
    assert_same(found, rank(plain, [*originals, plan]))
    assert_same(found[-1:], expected)
    assert (engine.num_slots, engine.counts.dropped) == (slots, dropped)


def test_a_domain_beyond_the_spare_slots_or_wider_makes_new_banks(tmp_path: Path, served: Served) -> None:
    engine = served.captured(replace(UNCAPTURED, num_spare_slots=0))
    rank(engine, random_plans(served.domains, 3, seed=8))
    wide = Served(tmp_path, {"wide": replace(TINY_LAYOUT, bottleneck=9, visual_tokens=4, feature_dim=20)})
    engine.place(5, _placement(wide, 0))
    plan = random_plan(wide.domains[0], 4)
    assert_same(rank(engine, [_moved(plan, 5)]), rank(wide.plain(), [plan]))
    assert engine.num_slots == 6
    assert engine.counts.dropped > 0


def test_a_larger_catalog_beside_others_drops_only_searches_that_it_takes_part_in(
    tmp_path: Path, served: Served
) -> None:
    engine = served.captured(UNCAPTURED)
    plan = random_plan(served.domains[2], 1)
    before, _ = engine.search([plan])
    large = Served(tmp_path, {"toys": TINY_LAYOUT}, num_items=900)
    engine.place(4, _placement(large, 0))
    dropped = engine.counts.dropped
    assert_same(engine.search([plan])[0], before)
    assert engine.counts.dropped == dropped
    other = replace(random_plan(large.domains[0], 1), num_beams=plan.num_beams)
    assert_same(engine.search([_moved(other, 4)])[0], large.plain().search([other])[0])
    assert engine.counts.dropped == dropped + 1


def test_slots_are_vacated_and_filled_again_by_other_catalogs(tmp_path: Path, served: Served) -> None:
    engine = served.captured(UNCAPTURED)
    other = Served(tmp_path, {"toys": TINY_LAYOUT})
    plan = random_plan(other.domains[0], 9)
    (expected,) = rank(other.plain(), [plan])
    for slot in (3, 4, 3, 3):
        engine.vacate(slot)
        engine.place(slot, _placement(other, 0))
        assert_same(rank(engine, [_moved(plan, slot)]), [expected])


def test_a_batch_that_does_not_fit_in_memory_is_split_until_it_does(
    served: Served, plain: DecodingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = served.captured()
    _fail_beyond(monkeypatch, num_rows=2)
    plans = random_plans(served.domains, 7, seed=21)
    assert_same(engine.search(plans)[0], plain.search(plans)[0])
    assert engine.counts.splits >= 3


def test_a_search_that_fits_in_no_memory_is_an_error_and_the_next_one_is_answered(
    served: Served, plain: DecodingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = served.captured()
    plans = random_plans(served.domains, 2, seed=22)
    memory = _fail_beyond(monkeypatch, num_rows=0)
    with pytest.raises(EngineError, match="a single search does not fit in memory"):
        engine.search(plans)
    memory.num_rows = 8
    assert_same(engine.search(plans)[0], plain.search(plans)[0])


def test_a_start_beyond_the_memory_is_refused_with_the_bucket_that_is_too_large(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (Bucket(rows, 64, 20, 4, is_mixed=True) for rows in (1, 8))
    options = replace(UNCAPTURED, warm_up=(small, large))
    assert served.captured(options).buckets == (small, large)
    capture = ProgramCache.capture

    def failing(programs: ProgramCache, bucket: Bucket) -> None:
        if bucket.num_rows > 2:
            raise torch.OutOfMemoryError("no memory for so many rows")
        capture(programs, bucket)

    monkeypatch.setattr(ProgramCache, "capture", failing)
    with pytest.raises(EngineError, match=r"num_rows=8.*no memory for so many rows"):
        served.captured(options)


def test_without_a_list_the_ladders_usual_shapes_are_made_ready(served: Served) -> None:
    ladder = Ladder(rows=(1, 2), tokens=(32, 64), beams=(20,), listed=(8,))
    engine = served.captured(CaptureOptions("float32", captures=False, ladder=ladder, warm_up=None))
    engine.warm_up(ladder.default_buckets())
    assert len(engine.buckets) == 4
    assert engine.buckets[0] == Bucket(2, 64, 20, 8, is_mixed=False)


def test_when_boosts_are_expected_the_captured_shapes_are_captured_with_them(served: Served) -> None:
    small, large = (Bucket(rows, 128, 20, 16, is_mixed=True) for rows in (1, 8))
    engine = served.captured(replace(UNCAPTURED, warm_up=(large, small)))
    plan = merchandised(random_plan(served.domains[2], 6), served.domains[2], 1)
    assert plan.boosts is not None
    engine.expect_boosts([plan.boosts.table])
    least = UNCAPTURED.ladder.patches[0]
    boosted = (replace(large, num_patches=least), replace(small, num_patches=least))
    assert engine.buckets == (large, small, *boosted)
    engine.search([replace(plan, num_beams=20, certified=False)])
    engine.expect_boosts([plan.boosts.table])
    assert engine.counts.captures == 4, "nothing is captured twice"


def test_expected_boosts_leave_what_is_captured_alone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = tuple(Bucket(rows, 64, 20, 4, is_mixed=True) for rows in (8, 1))
    engine = served.captured(replace(UNCAPTURED, warm_up=buckets, max_captures=3))
    engine.expect_boosts([])
    assert [bucket.is_boosted for bucket in engine.buckets] == [False, False, True]

    def failing(_programs: ProgramCache, _bucket: Bucket) -> None:
        raise torch.OutOfMemoryError("no memory for boosts")

    poor = served.captured(replace(UNCAPTURED, warm_up=buckets))
    monkeypatch.setattr(ProgramCache, "capture", failing)
    poor.expect_boosts([])
    assert poor.buckets == buckets


def test_beams_beyond_the_ladder_run_without_being_kept(served: Served, plain: DecodingEngine) -> None:
    engine = served.captured()
    plan = replace(random_plan(served.domains[2], 6), num_beams=33, certified=False)
    assert_same(engine.search([plan])[0], plain.search([plan])[0])
    assert (engine.buckets, engine.counts.uncaptured) == ((), 1)


def _text_plan(domain: ServedDomain) -> TextPlan:
    plan = plan_explanation(domain, OfflineExplanation(item_id="item-3", user_id="u1", max_new_tokens=5))
    return replace(plan, features=(np.ones((1, 8), dtype=np.float32),))


def _placement(served: Served, place: int) -> Placement:
    files = served.bundle.domains[served.domains[place].name]
    weights = {**served.bundle.backbone.weights, **files.adapter}
    return Placement(files.spec.layout, weights, served.domains[place].trie)


def _moved(plan: RankingPlan, slot: int) -> RankingPlan:
    return replace(plan, slot=slot)


@dataclass
class _Memory:
    num_rows: int  # searches of more rows do not fit


def _fail_beyond(monkeypatch: pytest.MonkeyPatch, num_rows: int) -> _Memory:
    memory = _Memory(num_rows)
    run = SearchProgram.run

    def failing(program: SearchProgram) -> None:
        if program.shape.bucket.num_rows > memory.num_rows:
            raise torch.OutOfMemoryError("no memory for so many rows")
        run(program)

    monkeypatch.setattr(SearchProgram, "run", failing)
    return memory
