"""The engine on a small bundle, against the log-probability of every item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bundle.bundle import open_bundle
from model.decoding.trie_arena import TrieArena
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import generate, rank
from model.engine.onnx.executor import OnnxStepper
from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import GeneratedText
from model.engine.stepper import NetworkStepper
from model.engine.torch_executor import TorchExecutor
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineExplanation, OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import Runtime, load_runtime
from tests.tiny import tiny_bundle

SAME = 1e-4


@pytest.fixture(scope="module", params=["torch", "onnx"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return load_runtime(tiny_bundle(tmp_path_factory.mktemp("engine"), num_items=400), engine=request.param)


@pytest.fixture(scope="module")
def toys(runtime: Runtime) -> ServedDomain:
    return runtime.domains["toys"]


@pytest.fixture(scope="module")
def plans(toys: ServedDomain) -> list[RankingPlan]:
    queries = [OfflineSequential(history=(f"item-{number}",), user_id="u1", k=5, num_beams=5) for number in range(1, 9)]
    return [_plan(toys, query) for query in queries]


@pytest.fixture(scope="module")
def truth(runtime: Runtime, toys: ServedDomain, plans: list[RankingPlan]) -> list[NDArray[np.float64]]:
    """Log-probability of every leaf, -inf where it is not eligible."""
    rows = toys.assembler.identifiers
    targets = tuple((*rows.row(row).tolist(), toys.tokenizer.eos_id) for row in toys.trie.rows_of_leaves)
    scores, _ = runtime.engine.score([ScoringPlan.of(each, targets) for each in plans])
    return [
        np.where(each.eligibility.mask(), np.array(own), -np.inf) for each, (own,) in zip(plans, scores, strict=True)
    ]


def test_scores_are_log_probabilities_of_the_items(
    runtime: Runtime, plans: list[RankingPlan], truth: list[NDArray[np.float64]]
) -> None:
    rankings = rank(runtime.engine, plans)
    for ranking, scores in zip(rankings, truth, strict=True):
        assert len(ranking.leaves) == 5
        assert ranking.scores == pytest.approx(scores[ranking.leaves], abs=SAME)


def test_the_targets_of_all_prompts_are_decoded_together(
    runtime: Runtime, plans: list[RankingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []

    def counting(kind: type[NetworkStepper | OnnxStepper]) -> None:
        step = kind.step

        def counted(stepper: Any, tokens: Tensor, parents: Tensor | None) -> Tensor:  # noqa: ANN401  # of either kind
            widths.append(tokens.shape[1])
            return step(stepper, tokens, parents)

        monkeypatch.setattr(kind, "step", counted)

    counting(NetworkStepper)
    counting(OnnxStepper)
    targets = tuple((token, token + 1, 1) for token in range(10, 20))
    runtime.engine.score([ScoringPlan.of(each, targets) for each in plans])

    assert widths == [1, 10, 10]


def test_certified_rankings_are_the_true_top_and_say_how_wide_they_went(
    runtime: Runtime, plans: list[RankingPlan], truth: list[NDArray[np.float64]]
) -> None:
    plain = rank(runtime.engine, plans)
    assert any(ranking.exact_prefix < 5 for ranking in plain)
    certified = rank(runtime.engine, [replace(each, certified=True) for each in plans])
    for ranking, before, scores in zip(certified, plain, truth, strict=True):
        assert ranking.exact_prefix == 5
        assert ranking.leaves.tolist() == np.argsort(-scores)[:5].tolist()
        assert (ranking.num_beams > 5) == (before.exact_prefix < 5)


def test_a_certified_search_leaves_its_neighbours_as_they_are(runtime: Runtime, plans: list[RankingPlan]) -> None:
    plain = rank(runtime.engine, plans)
    mixed = rank(runtime.engine, [replace(each, certified=number % 2 == 0) for number, each in enumerate(plans)])
    for ranking, before in list(zip(mixed, plain, strict=True))[1::2]:
        assert ranking.leaves.tolist() == before.leaves.tolist()
        assert (ranking.exact_prefix, ranking.num_beams) == (before.exact_prefix, 5)


def test_at_its_limit_a_certified_search_claims_no_more_than_is_true(
    toys: ServedDomain, plans: list[RankingPlan], truth: list[NDArray[np.float64]],
    runtime: Runtime,
) -> None:  # fmt: skip
    engine = _with_limit(runtime, toys, limit=7)
    rankings = rank(engine, [replace(each, certified=True) for each in plans])
    assert any(ranking.exact_prefix < 5 for ranking in rankings)
    for ranking, scores in zip(rankings, truth, strict=True):
        assert ranking.num_beams in (5, 7)
        assert ranking.num_beams == 7 or ranking.exact_prefix == 5
        best = np.argsort(-scores)[: ranking.exact_prefix].tolist()
        assert ranking.leaves[: ranking.exact_prefix].tolist() == best


def test_a_limit_below_the_beams_that_were_asked_for_takes_none_away(
    runtime: Runtime, toys: ServedDomain, plans: list[RankingPlan]
) -> None:
    rankings = rank(_with_limit(runtime, toys, limit=2), [replace(each, certified=True) for each in plans])
    assert [ranking.num_beams for ranking in rankings] == [5] * len(plans)


def test_fewer_items_than_asked_for_are_all_returned_and_proven(runtime: Runtime, toys: ServedDomain) -> None:
    included = ("item-4", "item-44", "item-10", "item-7")  # item-10 is not active
    query = OfflineSequential(history=("item-1",), include_items=included, k=9)
    (ranking,) = rank(runtime.engine, [_plan(toys, query)])
    found = [toys.catalog.item_ids[row] for row in toys.rows_of(ranking.leaves)]
    assert sorted(found) == ["item-4", "item-44", "item-7"]
    assert ranking.exact_prefix == 3


def test_nothing_eligible_gives_an_empty_ranking(runtime: Runtime, toys: ServedDomain) -> None:
    query = OfflineSequential(history=("item-1",), include_items=("item-10",), exactness="certified")
    (ranking,) = rank(runtime.engine, [_plan(toys, query)])
    assert (len(ranking.leaves), len(ranking.scores), ranking.exact_prefix) == (0, 0, 0)


def test_more_items_than_beams_give_as_many_as_there_are_beams(runtime: Runtime, plans: list[RankingPlan]) -> None:
    (wide,) = rank(runtime.engine, [plans[0]])
    (narrow,) = rank(runtime.engine, [replace(plans[0], k=50)])
    assert len(narrow.leaves) == 5
    assert narrow.leaves.tolist() == wide.leaves.tolist()


def test_texts_end_for_the_reason_that_is_given(runtime: Runtime, toys: ServedDomain) -> None:
    session = runtime.engine.open_texts(3)
    rows = session.admit([_text_plan(toys, number, max_new_tokens=6) for number in range(1, 4)])
    seen: dict[int, list[int]] = {row: [] for row in rows}
    texts: dict[int, GeneratedText] = {}
    while len(texts) < 3:
        for each in session.step():
            if each.token_id is not None:
                seen[each.row].append(each.token_id)
            if each.finished is not None:
                texts[each.row] = each.finished
        if rows[1] not in texts:
            texts[rows[1]] = session.cancel(rows[1])
    assert texts[rows[1]].finish_reason == "cancelled"
    assert len(texts[rows[1]].token_ids) == 1
    for row, text in texts.items():
        assert tuple(seen[row]) == text.token_ids
        if row != rows[1]:
            assert text.finish_reason == ("length" if len(text.token_ids) == 6 else "stop")


def test_beams_and_one_beam_texts_do_not_disturb_each_other(runtime: Runtime, toys: ServedDomain) -> None:
    plans = [_text_plan(toys, number, num_beams=beams) for number, beams in enumerate((2, 1, 3, 1), start=1)]
    for each, text in zip(plans, generate(runtime.engine, plans), strict=True):
        (alone,) = generate(runtime.engine, [each])
        assert text.token_ids == alone.token_ids


def test_a_search_tells_how_long_it_took(runtime: Runtime, plans: list[RankingPlan]) -> None:
    _, timings = runtime.engine.search(plans)
    assert timings.encode_s > 0
    assert timings.decode_s > 0


def test_scoring_nothing_gives_nothing(runtime: Runtime) -> None:
    assert runtime.engine.score([])[0] == []


def test_a_runtime_knows_its_bundle_and_its_features(runtime: Runtime, toys: ServedDomain) -> None:
    assert len(runtime.bundle_hash) == 64
    assert toys.bundle_hash == runtime.bundle_hash
    assert runtime.feature_files["toys"].name == "features.safetensors"


def _plan(domain: ServedDomain, query: OfflineSequential) -> RankingPlan:
    plan = plan_sequential(domain, query)
    assert isinstance(plan, RankingPlan)
    return replace(plan, features=(_features(len(plan.prompt.image_items)),))


def _text_plan(domain: ServedDomain, number: int, *, max_new_tokens: int = 5, num_beams: int = 1) -> TextPlan:
    query = OfflineExplanation(
        item_id=f"item-{number}", user_id="u2", max_new_tokens=max_new_tokens, num_beams=num_beams
    )
    return replace(plan_explanation(domain, query), features=(_features(1),))


def _features(num_images: int) -> NDArray[np.float32]:
    return np.random.default_rng(num_images).standard_normal((num_images, 8)).astype(np.float32)


def _with_limit(runtime: Runtime, domain: ServedDomain, limit: int) -> DecodingEngine:
    network = open_bundle(runtime.feature_files["toys"].parents[2]).network()
    return DecodingEngine(
        TorchExecutor(network, torch.device("cpu")), TrieArena.of([domain.trie]), certified_beam_limit=limit
    )


def test_a_batch_of_long_and_short_prompts_is_answered_in_its_order(runtime: Runtime, toys: ServedDomain) -> None:
    histories = [tuple(f"item-{number}" for number in range(1, length)) for length in (2, 40, 3, 12, 41, 2)]
    plans = [_plan(toys, OfflineSequential(history=history, user_id="u1")) for history in histories]
    together, _ = runtime.engine.search(plans)
    for plan, ranking in zip(plans, together, strict=True):
        ((alone,), _) = runtime.engine.search([plan])
        assert ranking.leaves.tolist() == alone.leaves.tolist()
        assert ranking.scores == pytest.approx(alone.scores, abs=SAME)
