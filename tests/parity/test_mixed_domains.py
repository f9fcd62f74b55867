"""Batches that mix domains, tasks, lengths, beams and length penalties against the same requests one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.bundle.layout import DomainSpec, PromptDefaults
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.writer import BundleWriter
from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieArena
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import generate, rank
from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import Ranking
from model.engine.torch_executor import TorchExecutor
from model.network.config import DomainLayout
from model.planning.domain import ServedDomain
from model.planning.explanations import plan_explanation
from model.planning.queries import OfflineDirect, OfflineExplanation, OfflineSequential
from model.planning.rankings import plan_direct, plan_sequential
from model.planning.runtime import Runtime, load_runtime
from model.prompts.prompt import Prompt
from tests.parity.golden import Golden
from tests.plans import plan_to
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors, tiny_catalog, tiny_tokenizer

SAME = 1e-5


@dataclass(frozen=True)
class Domain:
    """What a domain of the bundle has that no other has."""

    layout: DomainLayout
    num_items: int
    max_tokens: int


DOMAINS = {
    "books": Domain(
        replace(
            TINY_LAYOUT,
            bottleneck=2,
            cross_attention_adapter=False,
            one_adapter_for_all_tasks=False,
            visual_tokens=3,
            feature_dim=12,
            visual_norm=False,
            whole_word_rows=128,
        ),
        num_items=150,
        max_tokens=100,
    ),
    "plain": Domain(
        replace(TINY_LAYOUT, bottleneck=0, visual_tokens=0, feature_dim=0, category_rows=0), num_items=9, max_tokens=40
    ),
    "toys": Domain(TINY_LAYOUT, num_items=60, max_tokens=60),
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    root = tmp_path_factory.mktemp("mixed") / "bundle"
    with BundleWriter(root) as writer:
        writer.share_backbone(TINY_BACKBONE, random_tensors(expected_shapes(TINY_BACKBONE), 0), tiny_tokenizer())
        for seed, (name, domain) in enumerate(DOMAINS.items(), start=1):
            spec = DomainSpec(name, domain.layout, "", prompts=PromptDefaults(max_tokens=domain.max_tokens))
            adapter = random_tensors(expected_domain_shapes(TINY_BACKBONE, domain.layout), seed)
            writer.add_domain(spec, adapter, tiny_catalog(domain.num_items))
        writer.seal()
    return load_runtime(root)


@pytest.fixture(scope="module")
def rankings(runtime: Runtime) -> list[RankingPlan]:
    """All ways in which requests to rank differ, in one list."""
    plans = []
    for seed in range(24):
        domain = runtime.domains[sorted(DOMAINS)[seed % len(DOMAINS)]]
        generator = np.random.default_rng(seed)
        some = [domain.catalog.item_ids[row] for row in generator.integers(0, len(domain.catalog), 1 + seed % 7)]
        k = int(generator.integers(1, 12))
        shared: dict[str, Any] = {
            "k": k,
            "num_beams": k + int(generator.integers(0, 20)),
            "exclude_items": tuple(some[:1]),
            "where": {"category": ("dolls", "games")} if seed % 4 == 0 else {},
            "length_penalty": float(generator.choice([0.0, 0.0, 1.0, -0.5])),
            "exactness": "certified" if seed % 8 == 3 else "beam",
        }
        plan = (
            plan_sequential(domain, OfflineSequential(history=tuple(some), user_id="7", **shared))
            if seed % 2
            else plan_direct(domain, OfflineDirect(candidates=None if seed % 3 else tuple(some), user_id="8", **shared))
        )
        assert isinstance(plan, RankingPlan)
        plans.append(replace(plan, features=_features(domain, plan.prompts, seed)))
    return plans


def test_the_domains_differ_in_all_that_a_batch_must_keep_apart(runtime: Runtime) -> None:
    layouts = [domain.spec.layout for domain in runtime.domains.values()]
    for size in ("bottleneck", "visual_tokens", "feature_dim", "whole_word_rows"):
        assert len({getattr(layout, size) for layout in layouts}) >= 2
    assert len({domain.trie.num_leaves for domain in runtime.domains.values()}) == len(DOMAINS)


@pytest.mark.parametrize("batch_size", [2, 5, 24])
def test_a_mixed_batch_ranks_as_single_requests_do(
    runtime: Runtime, rankings: list[RankingPlan], batch_size: int
) -> None:
    for start in range(0, len(rankings), batch_size):
        batch = rankings[start : start + batch_size]
        together = rank(runtime.engine, batch)
        for plan, ranking in zip(batch, together, strict=True):
            (alone,) = rank(runtime.engine, [plan])
            _assert_same(ranking, alone)


def test_every_domain_beside_each_other_one_ranks_as_alone(runtime: Runtime, rankings: list[RankingPlan]) -> None:
    by_slot = {plan.slot: plan for plan in rankings}
    for first in by_slot.values():
        for second in by_slot.values():
            ranking, _ = rank(runtime.engine, [first, second])
            (alone,) = rank(runtime.engine, [first])
            _assert_same(ranking, alone)


def test_a_mixed_batch_scores_as_single_requests_do(runtime: Runtime) -> None:
    plans: list[ScoringPlan] = []
    for number, domain in enumerate(runtime.domains.values()):
        item_ids = domain.catalog.item_ids[:4]
        for template in ("B-1", "B-3"):
            plan = plan_direct(domain, OfflineDirect(candidates=item_ids, user_id="5", template=template))
            assert isinstance(plan, ScoringPlan)
            plans.append(replace(plan, features=_features(domain, plan.prompts, number)))
    plans = [replace(each, targets=each.targets[:1]) if number % 3 == 0 else each for number, each in enumerate(plans)]
    together, _ = runtime.engine.score(plans)
    assert [np.shape(scores) for scores in together] == [(4, len(each.targets)) for each in plans]
    for plan, scores in zip(plans, together, strict=True):
        for half, own in zip(plan.parts(2), (scores[:2], scores[2:]), strict=True):
            ((expected,), _) = runtime.engine.score([half])
            assert np.allclose(own, expected, atol=SAME)


def test_a_mixed_batch_writes_the_texts_of_single_requests(runtime: Runtime) -> None:
    plans: list[TextPlan] = []
    for number, domain in enumerate(runtime.domains.values()):
        for seed, temperature in enumerate((0.0, 0.8, 1.3)):
            query = OfflineExplanation(
                item_id=domain.catalog.item_ids[seed + number],
                user_id="3",
                star_rating=seed + 1,
                max_new_tokens=4 + 3 * seed,
                temperature=temperature,
                seed=seed,
                num_beams=3 if (seed, number) == (0, 1) else 1,
            )
            plan = plan_explanation(domain, query)
            plans.append(replace(plan, features=_features(domain, plan.prompts, seed)))
    together = generate(runtime.engine, plans)
    for each, text in zip(plans, together, strict=True):
        (alone,) = generate(runtime.engine, [each])
        assert (text.token_ids, text.finish_reason) == (alone.token_ids, alone.finish_reason)
        assert text.score == pytest.approx(alone.score, abs=1e-4)
    assert len({text.token_ids for text in together}) > len(together) / 2


def test_recorded_prompts_rank_in_batches_as_alone(golden: Golden, toys_trie: Trie, all_toys: LeafMask) -> None:
    """Real prompts of very different lengths, over the real catalog."""
    engine = DecodingEngine(TorchExecutor(golden.network, torch.device("cpu")), TrieArena.of([toys_trie]))
    eligibility = Eligibility.of(all_toys)
    cases = [case for case, _ in golden.ranked_cases()][::4]
    plans = [
        plan_to(RankingPlan, case.plan(), eligibility=eligibility, k=5, num_beams=beams)
        for case, beams in zip(cases, (20, 5, 10, 30, 8, 12, 7, 25), strict=True)
    ]
    together = rank(engine, plans)
    for each, ranking in zip(plans, together, strict=True):
        (alone,) = rank(engine, [each])
        _assert_same(ranking, alone)


def _features(domain: ServedDomain, prompts: Sequence[Prompt], seed: int) -> tuple[NDArray[np.float32], ...]:
    dim = domain.spec.layout.feature_dim
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal((len(prompt.image_items), dim)).astype(np.float32) for prompt in prompts)


def _assert_same(ranking: Ranking, alone: Ranking) -> None:
    assert ranking.leaves.tolist() == alone.leaves.tolist()
    assert ranking.scores == pytest.approx(alone.scores, abs=SAME)
    assert (ranking.exact_prefix, ranking.num_beams) == (alone.exact_prefix, alone.num_beams)
