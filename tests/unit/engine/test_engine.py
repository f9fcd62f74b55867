"""The engine on a small bundle, against the log-probability of every item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.bundle.bundle import open_bundle
from model.decoding.trie import TrieArena
from model.engine.decoding_engine import DecodingEngine
from model.engine.protocol import RankingWork, ScoringWork, TextWork
from model.engine.torch_executor import TorchExecutor
from model.planning.domain import ServedDomain
from model.planning.planning import plan_explanation, plan_sequential
from model.planning.plans import RankingPlan
from model.planning.queries import ExplanationQuery, RankingOptions, SequentialQuery
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
def work(toys: ServedDomain) -> list[RankingWork]:
    options = RankingOptions(k=5, num_beams=5)
    return [_work(toys, SequentialQuery((f"item-{number}",), user_id="u1", options=options)) for number in range(1, 9)]


@pytest.fixture(scope="module")
def truth(runtime: Runtime, toys: ServedDomain, work: list[RankingWork]) -> list[NDArray[np.float64]]:
    """Log-probability of every leaf, -inf where it is not eligible."""
    rows = toys.assembler.identifiers
    targets = tuple((*rows.row(row).tolist(), toys.tokenizer.eos_id) for row in toys.trie.rows_of_leaves)
    scores, _ = runtime.engine.score([ScoringWork(each.source, targets) for each in work])
    return [np.where(each.eligibility.mask(), np.array(row), -np.inf) for each, row in zip(work, scores, strict=True)]


def test_scores_are_log_probabilities_of_the_items(
    runtime: Runtime, work: list[RankingWork], truth: list[NDArray[np.float64]]
) -> None:
    rankings, _ = runtime.engine.rank(work)
    for ranking, scores in zip(rankings, truth, strict=True):
        assert len(ranking.leaves) == 5
        assert ranking.scores == pytest.approx(scores[ranking.leaves], abs=SAME)


def test_certified_rankings_are_the_true_top_and_say_how_wide_they_went(
    runtime: Runtime, work: list[RankingWork], truth: list[NDArray[np.float64]]
) -> None:
    plain, _ = runtime.engine.rank(work)
    assert any(ranking.exact_prefix < 5 for ranking in plain)
    certified, _ = runtime.engine.rank([replace(each, certified=True) for each in work])
    for ranking, before, scores in zip(certified, plain, truth, strict=True):
        assert ranking.exact_prefix == 5
        assert ranking.leaves.tolist() == np.argsort(-scores)[:5].tolist()
        assert (ranking.num_beams > 5) == (before.exact_prefix < 5)


def test_a_certified_search_leaves_its_neighbours_as_they_are(runtime: Runtime, work: list[RankingWork]) -> None:
    plain, _ = runtime.engine.rank(work)
    mixed, _ = runtime.engine.rank([replace(each, certified=number % 2 == 0) for number, each in enumerate(work)])
    for ranking, before in list(zip(mixed, plain, strict=True))[1::2]:
        assert ranking.leaves.tolist() == before.leaves.tolist()
        assert (ranking.exact_prefix, ranking.num_beams) == (before.exact_prefix, 5)


def test_at_its_limit_a_certified_search_claims_no_more_than_is_true(
    toys: ServedDomain, work: list[RankingWork], truth: list[NDArray[np.float64]],
    runtime: Runtime,
) -> None:  # fmt: skip
    engine = _with_limit(runtime, toys, limit=7)
    rankings, _ = engine.rank([replace(each, certified=True) for each in work])
    assert any(ranking.exact_prefix < 5 for ranking in rankings)
    for ranking, scores in zip(rankings, truth, strict=True):
        assert ranking.num_beams in (5, 7)
        assert ranking.num_beams == 7 or ranking.exact_prefix == 5
        best = np.argsort(-scores)[: ranking.exact_prefix].tolist()
        assert ranking.leaves[: ranking.exact_prefix].tolist() == best


def test_a_limit_below_the_beams_that_were_asked_for_takes_none_away(
    runtime: Runtime, toys: ServedDomain, work: list[RankingWork]
) -> None:
    rankings, _ = _with_limit(runtime, toys, limit=2).rank([replace(each, certified=True) for each in work])
    assert [ranking.num_beams for ranking in rankings] == [5] * len(work)


def test_fewer_items_than_asked_for_are_all_returned_and_proven(runtime: Runtime, toys: ServedDomain) -> None:
    included = ("item-4", "item-44", "item-10", "item-7")  # item-10 is not active
    query = SequentialQuery(("item-1",), include_items=included, options=RankingOptions(k=9))
    (ranking,), _ = runtime.engine.rank([_work(toys, query)])
    found = [toys.catalog.item_ids[row] for row in toys.rows_of(ranking.leaves)]
    assert sorted(found) == ["item-4", "item-44", "item-7"]
    assert ranking.exact_prefix == 3


def test_nothing_eligible_gives_an_empty_ranking(runtime: Runtime, toys: ServedDomain) -> None:
    query = SequentialQuery(("item-1",), include_items=("item-10",), options=RankingOptions(exactness="certified"))
    (ranking,), _ = runtime.engine.rank([_work(toys, query)])
    assert (len(ranking.leaves), len(ranking.scores), ranking.exact_prefix) == (0, 0, 0)


def test_more_items_than_beams_give_as_many_as_there_are_beams(runtime: Runtime, work: list[RankingWork]) -> None:
    (wide,), _ = runtime.engine.rank([work[0]])
    (narrow,), _ = runtime.engine.rank([replace(work[0], k=50)])
    assert len(narrow.leaves) == 5
    assert narrow.leaves.tolist() == wide.leaves.tolist()


def test_texts_end_for_the_reason_that_is_given(runtime: Runtime, toys: ServedDomain) -> None:
    work = [_text_work(toys, number, max_new_tokens=6) for number in range(1, 4)]
    seen: list[tuple[int, int]] = []

    def on_token(position: int, token: int) -> bool:
        seen.append((position, token))
        return position != 1

    texts, timings = runtime.engine.generate(work, on_token)
    assert texts[1].finish_reason == "cancelled"
    assert len(texts[1].token_ids) == 1
    for position, text in enumerate(texts):
        assert tuple(token for row, token in seen if row == position) == text.token_ids
        if position != 1:
            assert text.finish_reason == ("length" if len(text.token_ids) == 6 else "stop")
    assert timings.encode_s > 0
    assert timings.decode_s > 0


def test_positions_of_tokens_are_those_of_the_batch_where_beams_and_streams_mix(
    runtime: Runtime, toys: ServedDomain
) -> None:
    work = [_text_work(toys, number, num_beams=beams) for number, beams in enumerate((2, 1, 3, 1), start=1)]
    rows: set[int] = set()

    def on_token(row: int, _token: int) -> bool:
        rows.add(row)
        return True

    texts, _ = runtime.engine.generate(work, on_token)
    assert rows == {1, 3}
    for each, text in zip(work, texts, strict=True):
        (alone,), _ = runtime.engine.generate([each])
        assert text.token_ids == alone.token_ids


def test_scoring_nothing_gives_nothing(runtime: Runtime) -> None:
    assert runtime.engine.score([])[0] == []


def test_a_runtime_knows_its_bundle_and_its_features(runtime: Runtime, toys: ServedDomain) -> None:
    assert len(runtime.bundle_hash) == 64
    assert toys.bundle_hash == runtime.bundle_hash
    assert runtime.feature_files["toys"].name == "features.safetensors"


def _work(domain: ServedDomain, query: SequentialQuery) -> RankingWork:
    plan = plan_sequential(domain, query)
    assert isinstance(plan, RankingPlan)
    return plan.work([_features(len(plan.prompt.image_items))])


def _text_work(domain: ServedDomain, number: int, *, max_new_tokens: int = 5, num_beams: int = 1) -> TextWork:
    query = ExplanationQuery(f"item-{number}", user_id="u2", max_new_tokens=max_new_tokens, num_beams=num_beams)
    return plan_explanation(domain, query).work([_features(1)])


def _features(num_images: int) -> NDArray[np.float32]:
    return np.random.default_rng(num_images).standard_normal((num_images, 8)).astype(np.float32)


def _with_limit(runtime: Runtime, domain: ServedDomain, limit: int) -> DecodingEngine:
    network = open_bundle(runtime.feature_files["toys"].parents[2]).network()
    return DecodingEngine(
        TorchExecutor(network, torch.device("cpu")), TrieArena.of([domain.trie]), certified_beam_limit=limit
    )


def test_a_batch_of_long_and_short_prompts_is_answered_in_its_order(runtime: Runtime, toys: ServedDomain) -> None:
    histories = [tuple(f"item-{number}" for number in range(1, length)) for length in (2, 40, 3, 12, 41, 2)]
    works = [_work(toys, SequentialQuery(history, user_id="u1")) for history in histories]
    together, _ = runtime.engine.search(works)
    for work, ranking in zip(works, together, strict=True):
        ((alone,), _) = runtime.engine.search([work])
        assert ranking.leaves.tolist() == alone.leaves.tolist()
        assert ranking.scores == pytest.approx(alone.scores, abs=SAME)
