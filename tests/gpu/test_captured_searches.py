"""Captured searches on a GPU. A machine that has little beside torch runs them by

PYTHONPATH=. python3 -m pytest -c /dev/null --rootdir . --import-mode=importlib tests/gpu
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from model.engine.captured.engine import CapturedEngine
from model.engine.captured.options import CaptureOptions
from model.engine.captured.program import SearchProgram
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import generate, rank
from model.engine.protocol import Placement, Ranking
from model.network.projection import Projection, linear_gelu, linear_relu
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineExplanation
from tests.unit.engine.rankings import LAYOUTS, SMALL_LADDER, Served, assert_same, random_plan, random_plans

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

SAME_ON_ANOTHER_DEVICE = 1e-3
SAME_BY_OTHER_KERNELS = 1e-4  # above the noise between two orders of the same sums, which reaches 4e-5
EXACT = CaptureOptions("float32", captures=True, ladder=SMALL_LADDER, warm_up=())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("gpu"), LAYOUTS)


@pytest.fixture(scope="module")
def plain(served: Served) -> DecodingEngine:
    return served.plain()


@pytest.fixture(scope="module")
def engine(served: Served) -> Iterator[CapturedEngine]:
    yield served.captured(EXACT, device="cuda")
    torch.cuda.empty_cache()


@pytest.mark.parametrize("seed", range(12))
def test_captured_searches_rank_as_a_cpu_does(
    served: Served, plain: DecodingEngine, engine: CapturedEngine, seed: int
) -> None:
    plans = random_plans(served.domains, 1 + seed, seed)
    assert_same(rank(engine, plans), rank(plain, plans), SAME_ON_ANOTHER_DEVICE)


def test_a_replay_finds_what_the_same_operators_find_one_by_one(served: Served, engine: CapturedEngine) -> None:
    one_by_one = served.captured(replace(EXACT, captures=False), device="cuda")
    for seed in range(20, 26):
        plans = random_plans(served.domains, 6, seed)
        assert_same(engine.search(plans)[0], one_by_one.search(plans)[0], SAME_BY_OTHER_KERNELS)


def test_a_replay_repeats_itself_to_the_bit(served: Served, engine: CapturedEngine) -> None:
    plans = random_plans(served.domains, 6, seed=30)
    first, _ = engine.search(plans)
    engine.search(random_plans(served.domains, 6, seed=31))
    second, _ = engine.search(plans)
    assert_same(first, second, 0)


def test_bfloat16_finds_nearly_the_scores_of_float32(served: Served, plain: DecodingEngine) -> None:
    engine = served.captured(replace(EXACT, precision="bfloat16"), device="cuda")
    plans = [replace(plan, certified=False) for plan in random_plans(served.domains, 8, seed=2)]
    for found, expected in zip(engine.search(plans)[0], plain.search(plans)[0], strict=True):
        assert len(found.leaves) == len(expected.leaves)
        assert found.scores == pytest.approx(expected.scores, rel=0.15)


def test_narrower_products_are_this_engines_alone(served: Served, plain: DecodingEngine) -> None:
    before = torch.get_float32_matmul_precision()
    engine = served.captured(replace(EXACT, precision="tfloat32"), device="cuda")
    plans = [replace(plan, certified=False) for plan in random_plans(served.domains, 8, seed=2)]
    for found, expected in zip(engine.search(plans)[0], plain.search(plans)[0], strict=True):
        assert found.scores == pytest.approx(expected.scores, rel=0.02)
    assert torch.get_float32_matmul_precision() == before


def test_certified_searches_are_proven_beside_narrower_products(served: Served, plain: DecodingEngine) -> None:
    engine = served.captured(replace(EXACT, precision="tfloat32"), device="cuda")
    plans = [replace(plan, certified=number % 2 == 0) for number, plan in enumerate(random_plans(served.domains, 8, 3))]
    found, expected = rank(engine, plans), rank(plain, plans)
    assert [ranking.exact_prefix for ranking in found[1::2]] == [0] * 4
    assert_same(found[::2], expected[::2], SAME_ON_ANOTHER_DEVICE)


def test_products_with_an_activation_are_those_of_a_cpu() -> None:
    generator = torch.Generator().manual_seed(2)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((3, 5, 64), (32, 64), (32,)))
    projection = Projection(torch.nn.Parameter(weight))
    gelu, relu = linear_gelu(x, weight, bias), linear_relu(x, projection, None)
    on_device = (x.cuda(), weight.cuda(), bias.cuda())
    assert torch.allclose(linear_gelu(*on_device).cpu(), gelu, atol=1e-3)
    found = linear_relu(on_device[0], Projection(torch.nn.Parameter(on_device[1])), torch.zeros(32, device="cuda"))
    assert torch.allclose(found.cpu(), relu, atol=1e-3)


def test_texts_are_generated_beside_captured_searches(served: Served, plain: DecodingEngine) -> None:
    engine = served.captured(EXACT, device="cuda")
    query = OfflineExplanation(item_id="item-3", user_id="u1", max_new_tokens=5)
    plan = replace(plan_explanation(served.domains[2], query), features=(torch.ones(1, 8).numpy(),))
    assert generate(engine, [plan])[0].token_ids == generate(plain, [plan])[0].token_ids


def test_a_search_does_not_wait_for_the_device(served: Served, engine: CapturedEngine) -> None:
    with torch.inference_mode():
        with engine._on_stream():  # on which the engine fills, so that copies are in order
            program = engine._filled(random_plans(served.domains, 4, seed=7)).program
            program.buffers.send()
            program.run()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with engine._on_stream():
                program.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_catalogs_come_and_go_without_another_capture(served: Served) -> None:
    engine = served.captured(EXACT, device="cuda")
    plans = random_plans(served.domains, 4, seed=9)
    expected, _ = engine.search(plans)
    captures = engine.counts.captures
    for _ in range(5):
        engine.place(engine.num_slots - 1, _placement(served))
        assert_same(engine.search(plans)[0], expected, 0)
        engine.vacate(engine.num_slots - 1)
    assert engine.counts.captures == captures


def test_domains_are_placed_while_others_are_searched(served: Served) -> None:
    engine = served.captured(EXACT, device="cuda")
    plans = random_plans(served.domains, 4, seed=9)
    expected, _ = engine.search(plans)
    found: list[list[Ranking]] = []
    is_over = threading.Event()

    def search() -> None:
        while not is_over.is_set():
            found.append(engine.search(plans)[0])

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for _ in range(10):
            engine.place(engine.num_slots - 1, _placement(served))
            engine.vacate(engine.num_slots - 1)
    finally:
        is_over.set()
        thread.join()
    assert found
    for rankings in found:
        assert_same(rankings, expected, 0)


def test_a_placed_domain_answers_as_it_does_in_its_own_place(served: Served) -> None:
    engine = served.captured(EXACT, device="cuda")
    plan = random_plan(served.domains[2], 5)
    expected = rank(engine, [plan])
    engine.place(engine.num_slots - 1, _placement(served))
    moved = replace(plan, slot=engine.num_slots - 1)
    assert_same(rank(engine, [moved]), expected, SAME_BY_OTHER_KERNELS)


def test_a_batch_that_does_not_fit_is_split(
    served: Served, plain: DecodingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = served.captured(EXACT, device="cuda")
    run = SearchProgram.run

    def failing(program: SearchProgram) -> None:
        if program.shape.bucket.num_rows > 2:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        run(program)

    monkeypatch.setattr(SearchProgram, "run", failing)
    plans = random_plans(served.domains, 7, seed=21)
    assert_same(engine.search(plans)[0], plain.search(plans)[0], SAME_ON_ANOTHER_DEVICE)
    assert engine.counts.splits >= 3


def _placement(served: Served) -> Placement:
    files = served.bundle.domains[served.domains[2].name]
    weights = {**served.bundle.backbone.weights, **files.adapter}
    return Placement(files.spec.layout, weights, served.domains[2].trie)
