"""Constrained search against the library's own, and against the log-probability of every item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.decoding.constraints import Eligibility, LeafMask
from model.decoding.trie import Trie
from model.engine.protocol import RankingWork
from model.engine.torch_engine import TorchEngine
from model.network.network import START_ID
from tests.parity.golden import NUM_ITEMS, SCORE_TOLERANCE, STATE_TOLERANCE, Case, Golden

K = 20
NEIGHBOURS_MAY_SWAP = 1e-4
CHUNK = 64


@pytest.fixture
def all_work(golden: Golden, all_toys: LeafMask) -> list[tuple[Case, RankingWork]]:
    eligibility = Eligibility.of(all_toys)
    return [(case, RankingWork(case.source(), eligibility, k=K, num_beams=K)) for case, _ in golden.ranked_cases()]


def test_rankings_and_scores_equal_the_librarys_search(
    golden: Golden, engine: TorchEngine, toys_trie: Trie, all_work: list[tuple[Case, RankingWork]]
) -> None:
    rankings = golden.json("exact.json")
    assert len(all_work) == len(rankings) == 31
    for case, work in all_work:
        (ranking,), _ = engine.rank([work])
        recorded = golden.exact[f"{case.name}/lp0/scores"].numpy()
        found = [str(row + 1) for row in toys_trie.rows_of_leaves[ranking.leaves]]
        assert found == rankings[case.name]["lp0"], case.name
        assert np.abs(ranking.scores - recorded).max() < SCORE_TOLERANCE, case.name


def test_exact_prefix_is_never_more_than_is_true(
    golden: Golden, engine: TorchEngine, toys_trie: Trie, all_work: list[tuple[Case, RankingWork]]
) -> None:
    proven = 0
    for case, work in all_work:
        for num_beams in (K, 100):
            (ranking,), _ = engine.rank([replace(work, num_beams=num_beams)])
            best = np.sort(golden.exact[f"{case.name}/exact_log_prob"].numpy())[::-1]
            exact = golden.exact[f"{case.name}/exact_log_prob"].numpy()[toys_trie.rows_of_leaves[ranking.leaves]]
            prefix = ranking.exact_prefix
            assert np.abs(exact[:prefix] - best[:prefix]).max(initial=0) < NEIGHBOURS_MAY_SWAP, case.name
            proven += prefix
    assert proven > 0


def test_certified_answers_are_the_true_top_of_the_catalog(
    golden: Golden, engine: TorchEngine, toys_trie: Trie, all_work: list[tuple[Case, RankingWork]]
) -> None:
    rankings = golden.json("exact.json")
    for case, work in all_work:
        (ranking,), _ = engine.rank([replace(work, certified=True)])
        assert (toys_trie.rows_of_leaves[ranking.leaves] + 1).tolist() == rankings[case.name]["exact_top20"], case.name
        assert ranking.exact_prefix == K, case.name


def test_every_item_of_the_catalog_has_the_recorded_log_probability(golden: Golden, toys_trie: Trie) -> None:
    for case, _ in golden.ranked_cases():
        computed = _all_log_probs(golden, case, toys_trie)
        assert len(computed) == NUM_ITEMS
        assert np.abs(computed - golden.exact[f"{case.name}/exact_log_prob"].numpy()).max() < STATE_TOLERANCE, case.name


def test_with_a_length_penalty_the_scores_are_the_penalised_log_probabilities(
    golden: Golden, engine: TorchEngine, toys_trie: Trie, all_work: list[tuple[Case, RankingWork]]
) -> None:
    lengths = np.array([len(_path(toys_trie, leaf)) for leaf in range(toys_trie.num_leaves)])
    for case, work in all_work[:6]:
        for length_penalty in (1.0, -0.5):
            penalised = golden.exact[f"{case.name}/exact_log_prob"].numpy()[toys_trie.rows_of_leaves]
            penalised = penalised / lengths**length_penalty
            wide = replace(work, length_penalty=length_penalty, num_beams=60)
            (ranking,), _ = engine.rank([wide])
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
    """Teacher-forces every inner node's prefix, many in one batch, and adds the edges up: one number per item."""
    network = golden.network
    batch = golden.batch(case)
    memory = network.memorise(batch)
    totals = np.zeros(trie.num_nodes)
    for nodes, prefixes in _prefixes_by_depth(trie):
        for start in range(0, len(nodes), CHUNK):
            chunk = nodes[start : start + CHUNK]
            inputs = torch.tensor([[START_ID, *prefix] for prefix in prefixes[start : start + CHUNK]])
            spread = replace(
                memory,
                keys=tuple(keys.expand(len(chunk), -1, -1, -1) for keys in memory.keys),
                values=tuple(values.expand(len(chunk), -1, -1, -1) for values in memory.values),
            )
            embedded = torch.nn.functional.embedding(inputs, network.shared)
            states = network.decoder(embedded, spread, batch.rows)[:, -1]
            log_probs = network.logits(states).log_softmax(-1)
            counts = trie.first_child[chunk + 1] - trie.first_child[chunk]
            children = np.concatenate([np.arange(*trie.first_child[[node, node + 1]]) for node in chunk])
            parents = np.repeat(np.arange(len(chunk)), counts)
            totals[children] = totals[chunk][parents] + log_probs.numpy()[parents, trie.token[children]]
    is_leaf = trie.first_child[:-1] == trie.first_child[1:]
    by_item = np.empty(trie.num_leaves)
    by_item[trie.rows_of_leaves[trie.leaf_lo[is_leaf]]] = totals[is_leaf]
    return by_item


def _prefixes_by_depth(trie: Trie) -> Iterator[tuple[NDArray[np.int64], list[tuple[int, ...]]]]:
    level: dict[int, tuple[int, ...]] = {0: ()}
    while level:
        yield np.array(list(level)), list(level.values())
        level = {
            child: (*prefix, int(trie.token[child]))
            for node, prefix in level.items()
            for child in range(trie.first_child[node], trie.first_child[node + 1])
            if trie.first_child[child] < trie.first_child[child + 1]
        }
