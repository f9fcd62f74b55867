"""No precision claims a proof that float32 contradicts. Tensor cores are emulated, the oracle searches all items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks.tensor_cores import TensorCores
from model.decoding.items import EXACTNESS_MARGIN
from model.engine.captured.buckets import Bucket, Ladder
from model.engine.captured.engine import CapturedEngine, captured_engine
from model.engine.captured.filling import read
from model.engine.captured.options import CaptureOptions, Precision
from model.engine.offline import rank
from model.engine.onnx.executor import OnnxExecutor
from model.engine.plans import RankingPlan
from model.engine.protocol import Engine, Ranking
from model.engine.scores import ranking_of_scores
from model.errors import EngineError
from model.planning.queries import OfflineDirect
from model.planning.rankings import plan_direct
from tests.unit.engine.rankings import LAYOUTS, Served, random_plans

NUM_REQUESTS = 2000
LARGEST_NOISE = EXACTNESS_MARGIN  # items whose scores in float32 are closer than this may stand in either order
MOST_ITEMS = 70
SHARPNESS = 8  # factor of the logits: scores that differ widely, as a trained model's, and rounding errors that do too
LADDER = Ladder((1, 64, 250), tokens=(128,), beams=(20, MOST_ITEMS), listed=(16,), max_beams=64_000)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("certification"), LAYOUTS, num_items=MOST_ITEMS)


@pytest.fixture(scope="module", autouse=True)
def _unpacked() -> Iterator[None]:
    """Products with packed weights would escape the emulation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.engine.torch_executor.pack_projections", lambda _network: None)
        yield


@pytest.fixture(scope="module")
def plans(served: Served) -> list[RankingPlan]:
    """Every eighth is certified, with beams for all items, so that nothing is pruned."""
    drawn = [replace(each, length_penalty=0.0) for each in random_plans(served.domains, NUM_REQUESTS, seed=77)]
    certified = [replace(plan, certified=True, num_beams=MOST_ITEMS) for plan in drawn[::8]]
    others = [replace(plan, certified=False) for number, plan in enumerate(drawn) if number % 8]
    return [*certified, *others]


@pytest.fixture(scope="module")
def truth(served: Served, plans: list[RankingPlan]) -> list[dict[int, float]]:
    """All eligible leaves with their scores in float32, best first."""
    engine = _engine(served, "float32")
    wide = [replace(plan, k=MOST_ITEMS, num_beams=MOST_ITEMS, certified=False) for plan in plans]
    return [dict(zip(r.leaves.tolist(), r.scores.tolist(), strict=True)) for r in _ranked(engine, wide)]


@pytest.mark.parametrize("precision", ["float32", "tfloat32", "bfloat16"])
def test_no_claim_is_contradicted_by_float32(
    served: Served, plans: list[RankingPlan], truth: list[dict[int, float]], precision: Precision
) -> None:
    asked = plans[::10] if precision == "bfloat16" else plans  # it is slow here, and claims nothing
    with TensorCores() as cores:
        rankings = _ranked(_engine(served, precision), asked)

    if precision != "bfloat16":
        assert _contradicted(rankings, truth) == 0
    claims = [ranking.exact_prefix for ranking in rankings]
    is_certified = [plan.certified for plan in asked]
    assert (cores.num_narrowed > 0) == (precision == "tfloat32")
    certified_claims = sum(claim for claim, is_one in zip(claims, is_certified, strict=True) if is_one)
    assert (certified_claims > 0) == (precision != "bfloat16")
    assert (sum(claims) > certified_claims) == (precision == "float32")


def test_the_oracle_contradicts_claims_from_narrower_products(
    served: Served, plans: list[RankingPlan], truth: list[dict[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be claimed if the precision did not matter; otherwise the test above could not fail."""
    claiming = partial(read, is_exact=True)
    monkeypatch.setattr("model.engine.captured.engine.read", lambda buffers, plans, **_: claiming(buffers, plans))
    uncertified = [replace(plan, certified=False, k=MOST_ITEMS) for plan in plans if plan.certified]
    with TensorCores():
        rankings = _ranked(_engine(served, "tfloat32"), uncertified)
    assert _contradicted(rankings, truth[: len(rankings)]) > 0


def test_certified_rankings_of_narrower_products_are_those_of_float32(served: Served, plans: list[RankingPlan]) -> None:
    certified = [replace(plan, num_beams=plan.k) for plan in plans[:20]]
    expected = rank(_engine(served, "float32"), certified)
    with TensorCores():
        found = rank(_engine(served, "tfloat32"), certified)
    for one, other in zip(found, expected, strict=True):
        assert one.leaves.tolist() == other.leaves.tolist()
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
        assert (one.exact_prefix, one.num_beams) == (other.exact_prefix, other.num_beams)


def test_an_engine_that_proves_nothing_does_not_widen_searches(served: Served, plans: list[RankingPlan]) -> None:
    plan = next(plan for plan in plans if plan.certified)
    engines: list[Engine] = [_engine(served, "bfloat16"), served.over(OnnxExecutor, precision="int8")]
    for engine in engines:
        assert not engine.is_exact
        (ranking,), _ = engine.search([plan])
        assert ranking.exact_prefix == 0
        assert engine.widened(plan, ranking) is None


@pytest.mark.parametrize("is_exact", [True, False])
def test_candidates_are_proven_by_exact_scores_only(served: Served, *, is_exact: bool) -> None:
    query = OfflineDirect(candidates=("item-1", "item-2"), user_id="u1", template="B-1")
    plan = plan_direct(served.domains[2], query)
    ranking = ranking_of_scores(plan, ((-1.0, -2.0), (-2.0, -1.0)), is_exact=is_exact)  # type: ignore[arg-type]
    assert ranking.exact_prefix == (2 if is_exact else 0)


def test_buckets_of_other_precisions_do_not_cover_each_other() -> None:
    plain, exact = Bucket(8, 64, 20, 64, is_mixed=True), Bucket(8, 64, 20, 64, is_mixed=True, is_exact=True)
    assert not plain.covers(exact)
    assert not exact.covers(plain)
    assert Bucket.from_json(exact.to_json()) == exact
    stored = plain.to_json()
    del stored["is_exact"]
    assert Bucket.from_json(stored) == plain
    with pytest.raises(EngineError, match="true or false"):
        Bucket.from_json({**stored, "is_exact": 1})


def test_searches_leave_the_precision_of_the_process_alone(served: Served, plans: list[RankingPlan]) -> None:
    engine = _engine(served, "tfloat32")
    with _process_precision("medium"):
        engine.search(plans[:1])
        engine.search([replace(plans[0], num_beams=300)])
        assert torch.get_float32_matmul_precision() == "medium"


@contextmanager
def _process_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _engine(served: Served, precision: Precision) -> CapturedEngine:
    network = served.bundle.network()
    with torch.no_grad():
        network.decoder.final_norm.weight.mul_(SHARPNESS)
    options = CaptureOptions(precision, captures=False, ladder=LADDER, warm_up=(), num_spare_slots=0)
    return captured_engine(network, [domain.trie for domain in served.domains], torch.device("cpu"), options)


def _ranked(engine: CapturedEngine, plans: Sequence[RankingPlan]) -> list[Ranking]:
    return [ranking for start in range(0, len(plans), 250) for ranking in engine.search(plans[start : start + 250])[0]]


def _contradicted(rankings: Sequence[Ranking], truth: Sequence[dict[int, float]]) -> int:
    """Number of requests with a claimed item that, in float32, scores lower than the true item of its place."""
    return sum(
        any(
            scores[leaf] < true_score - LARGEST_NOISE
            for leaf, true_score in zip(ranking.leaves[: ranking.exact_prefix].tolist(), scores.values(), strict=False)
        )
        for ranking, scores in zip(rankings, truth, strict=True)
    )
