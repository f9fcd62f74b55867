"""Constrained search against the library's own, and against the log-probability of every item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.trie import Trie
from model.engine.captured.engine import CapturedEngine
from model.engine.decoding_engine import DecodingEngine
from model.engine.offline import rank
from model.engine.plans import RankingPlan
from model.network.network import Vip5Network
from tests.parity.golden import NUM_ITEMS, SCORE_TOLERANCE, STATE_TOLERANCE, Case, Golden
from tests.plans import plan_to

K = 20
NEIGHBOURS_MAY_SWAP = 1e-4
CHUNK = 256


@pytest.fixture
def all_plans(golden: Golden, all_toys: LeafMask) -> list[tuple[Case, RankingPlan]]:
    eligibility = Eligibility.of(all_toys)
    return [
        (case, plan_to(RankingPlan, case.plan(), eligibility=eligibility, k=K, num_beams=K))
        for case, _ in golden.ranked_cases()
    ]


def test_rankings_and_scores_equal_the_librarys_search(
    golden: Golden, engine: DecodingEngine, toys_trie: Trie, all_plans: list[tuple[Case, RankingPlan]]
) -> None:
    rankings = golden.json("exact.json")
    assert len(all_plans) == len(rankings) == 31
    for case, plan in all_plans:
        (ranking,) = rank(engine, [plan])
        recorded = golden.exact[f"{case.name}/lp0/scores"].numpy()
        found = [str(row + 1) for row in toys_trie.rows_of_leaves[ranking.leaves]]
        assert found == rankings[case.name]["lp0"], case.name
        assert np.abs(ranking.scores - recorded).max() < SCORE_TOLERANCE, case.name


def test_searches_over_static_buffers_equal_the_librarys_in_one_mixed_batch(
    golden: Golden, static_engine: CapturedEngine, toys_trie: Trie, all_plans: list[tuple[Case, RankingPlan]]
) -> None:
    recorded = golden.json("exact.json")
    rankings, _ = static_engine.search([plan for _, plan in all_plans])
    for (case, _), ranking in zip(all_plans, rankings, strict=True):
        found = [str(row + 1) for row in toys_trie.rows_of_leaves[ranking.leaves]]
        scores = golden.exact[f"{case.name}/lp0/scores"].numpy()
        assert found == recorded[case.name]["lp0"], case.name
        assert np.abs(ranking.scores - scores).max() < SCORE_TOLERANCE, case.name


def test_exact_prefix_is_never_more_than_is_true(
    golden: Golden, engine: DecodingEngine, toys_trie: Trie, all_plans: list[tuple[Case, RankingPlan]]
) -> None:
    proven = 0
    for case, plan in all_plans:
        for num_beams in (K, 100):
            (ranking,) = rank(engine, [replace(plan, num_beams=num_beams)])
            best = np.sort(golden.exact[f"{case.name}/exact_log_prob"].numpy())[::-1]
            exact = golden.exact[f"{case.name}/exact_log_prob"].numpy()[toys_trie.rows_of_leaves[ranking.leaves]]
            prefix = ranking.exact_prefix
            assert np.abs(exact[:prefix] - best[:prefix]).max(initial=0) < NEIGHBOURS_MAY_SWAP, case.name
            proven += prefix
    assert proven > 0


def test_certified_answers_are_the_true_top_of_the_catalog(
    golden: Golden, engine: DecodingEngine, toys_trie: Trie, all_plans: list[tuple[Case, RankingPlan]]
) -> None:
    rankings = golden.json("exact.json")
    for case, plan in all_plans:
        (ranking,) = rank(engine, [replace(plan, certified=True)])
        assert (toys_trie.rows_of_leaves[ranking.leaves] + 1).tolist() == rankings[case.name]["exact_top20"], case.name
        assert ranking.exact_prefix == K, case.name


def test_every_item_of_the_catalog_has_the_recorded_log_probability(golden: Golden, toys_trie: Trie) -> None:
    for case, _ in golden.ranked_cases():
        computed = _all_log_probs(golden, case, toys_trie)
        assert len(computed) == NUM_ITEMS
        assert np.abs(computed - golden.exact[f"{case.name}/exact_log_prob"].numpy()).max() < STATE_TOLERANCE, case.name


def test_with_a_length_penalty_the_scores_are_the_penalised_log_probabilities(
    golden: Golden, engine: DecodingEngine, toys_trie: Trie, all_plans: list[tuple[Case, RankingPlan]]
) -> None:
    lengths = np.array([len(_path(toys_trie, leaf)) for leaf in range(toys_trie.num_leaves)])
    for case, plan in all_plans[:6]:
        for length_penalty in (1.0, -0.5):
            penalised = golden.exact[f"{case.name}/exact_log_prob"].numpy()[toys_trie.rows_of_leaves]
            penalised = penalised / lengths**length_penalty
            wide = replace(plan, length_penalty=length_penalty, num_beams=60)
            (ranking,) = rank(engine, [wide])
            assert np.abs(ranking.scores - penalised[ranking.leaves]).max() < STATE_TOLERANCE, case.name
            best = np.sort(penalised)[::-1]
            prefix = ranking.exact_prefix
            assert np.abs(ranking.scores[:prefix] - best[:prefix]).max(initial=0) < NEIGHBOURS_MAY_SWAP, case.name


def _path(trie: Trie, leaf: int) -> list[int]:
    """Tokens of an identifier and `</s>`, so as many as the library counts with the start token."""
    tokens, node = [], 0
    while trie.first_child[node] < trie.first_child[node + 1]:
        children = np.arange(trie.first_child[node], trie.first_child[node + 1])
        node = int(children[(trie.leaf_lo[children] <= leaf) & (leaf < trie.leaf_hi[children])][0])
        tokens.append(int(trie.token[node]))
    return tokens


def _all_log_probs(golden: Golden, case: Case, trie: Trie) -> NDArray[np.float64]:
    """Log-probability of every item: decodes each level's prefixes as beams of one row and adds the edges up."""
    network = golden.network
    batch = golden.batch(case)
    memory = network.memorise(batch)
    cache = network.new_cache(1, max(trie.level_widths), trie.depth)
    totals = np.zeros(trie.num_nodes)
    nodes = np.zeros(1, dtype=np.int64)
    for bias in network.step_biases(trie.depth):
        tokens = torch.from_numpy(trie.token[nodes]).long().unsqueeze(0)  # the root's is the start token, 0
        embedded = torch.nn.functional.embedding(tokens, network.shared)
        states = network.decoder.step(embedded, bias, cache, memory, batch.rows)[0]
        children, parents = _edges(trie, nodes)
        totals[children] = totals[nodes][parents] + _edge_log_probs(network, states, parents, trie.token[children])
        has_children = trie.first_child[children] < trie.first_child[children + 1]
        nodes = children[has_children]
        spread = np.zeros((1, cache.num_beams), dtype=np.int64)
        spread[0, : len(nodes)] = parents[has_children]
        cache.reorder(torch.from_numpy(spread))
    is_leaf = trie.first_child[:-1] == trie.first_child[1:]
    by_item = np.empty(trie.num_leaves)
    by_item[trie.rows_of_leaves[trie.leaf_lo[is_leaf]]] = totals[is_leaf]
    return by_item


def _edges(trie: Trie, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Children of consecutive nodes, and for each the position of its parent among the nodes."""
    counts = trie.first_child[nodes + 1] - trie.first_child[nodes]
    children = np.concatenate([np.arange(*trie.first_child[[node, node + 1]]) for node in nodes])
    return children, np.repeat(np.arange(len(nodes)), counts)


def _edge_log_probs(
    network: Vip5Network, states: torch.Tensor, parents: NDArray[np.int64], tokens: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Log-probability of each token after its parent's state; parents are sorted."""
    found = np.empty(len(parents), dtype=np.float32)
    for start in range(0, len(states), CHUNK):
        log_probs = network.logits(states[start : start + CHUNK]).log_softmax(-1).numpy()
        first, last = np.searchsorted(parents, [start, start + CHUNK])
        found[first:last] = log_probs[parents[first:last] - start, tokens[first:last]]
    return found
