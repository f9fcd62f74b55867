"""Tokens of identifiers that begin as vectors of their items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.datasets.item_vectors import Floats, Weights, item_vectors
from model.datasets.semantic import trained_items
from model.errors import DatasetError, TrainingError
from model.prompts.assembly import TokenRows
from model.training.config import read_run
from model.training.item_embeddings import embed_items
from model.training.preparation import prepare
from tests.unit.training.tiny_data import FROM_SCRATCH, tiny_dataset, write_run

WEIGHTS = Weights(pictures=1.0)
WITH_VECTORS = FROM_SCRATCH.replace(
    "[backbone]", "[backbone]\nitem_embeddings = { pictures = 1.0 }\nembedding_std = 0.1"
)


def embedded(identifiers: TokenRows, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings before and after."""
    before = torch.randn(vocabulary, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    after = before.clone()
    embed_items(after, tiny_dataset(), identifiers, WEIGHTS, 0)
    return before, after


def known_vectors() -> tuple[Floats, NDArray[np.int64]]:
    """Vectors of the items that have one, and their rows."""
    dataset = tiny_dataset()
    found = item_vectors(dataset, WEIGHTS, 8, trained_items(dataset), 0)
    return found.vectors[found.is_known], np.flatnonzero(found.is_known)


def _size(vectors: Floats) -> float:
    return float(np.sqrt((vectors**2).mean()))


def test_tokens_of_one_item_begin_as_its_vector_at_the_spread_of_the_others() -> None:
    before, after = embedded(TokenRows.of([[10 + row] for row in range(60)]), 100)
    vectors, rows = known_vectors()
    scale = float(before.std()) / float(np.sqrt((vectors**2).mean()))
    np.testing.assert_allclose(after[10 + rows].numpy(), vectors * scale, rtol=1e-4, atol=1e-6)
    unknown = np.setdiff1d(np.arange(60), rows)
    assert torch.equal(after[10 + unknown], before[10 + unknown])
    assert torch.equal(after[:10], before[:10])
    assert torch.equal(after[70:], before[70:])


def test_the_next_token_begins_as_what_the_first_leaves_of_its_items() -> None:
    _, after = embedded(TokenRows.of([[10 + row % 6, 20 + row % 10] for row in range(60)]), 40)
    left, rows = known_vectors()
    for start, groups in ((10, 6), (20, 10)):
        numbers = rows % groups
        means = np.stack([left[numbers == each].mean(axis=0) for each in range(groups)])
        found = after[start : start + groups].numpy()
        np.testing.assert_allclose(found / _size(found), means / _size(means), rtol=1e-4, atol=1e-5)
        left = left - means[numbers]


def test_a_token_that_says_nothing_more_of_its_items_keeps_its_random_embedding() -> None:
    before, after = embedded(TokenRows.of([[10 + row, 80] for row in range(60)]), 100)
    assert torch.equal(after[80], before[80])
    assert not torch.equal(after[10], before[10])


def test_a_run_begins_from_the_vectors_of_its_items(tmp_path: Path) -> None:
    plain = prepare(read_run(write_run(tmp_path, WITH_VECTORS.replace("item_embeddings = { pictures = 1.0 }\n", ""))))
    embeddings = prepare(read_run(write_run(tmp_path, WITH_VECTORS))).network.shared
    rows = plain.domains[0].sampler.assembler.identifiers
    changed = (embeddings != plain.network.shared).any(dim=1).nonzero().flatten().tolist()
    assert changed
    assert set(changed) <= set(rows.flat.tolist())


def test_vectors_of_several_domains_are_refused(tmp_path: Path) -> None:
    text = WITH_VECTORS + '\n[[domains]]\nname = "other"\ndata = "data"\n'
    with pytest.raises(TrainingError, match=r"run.toml:\d+: backbone.item_embeddings .* 2 \[\[domains\]\]; name one"):
        read_run(write_run(tmp_path, text))


def test_vectors_of_nothing_are_refused(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, WITH_VECTORS.replace("pictures = 1.0", "pictures = 0.0")))
    with pytest.raises(DatasetError, match="all weights are 0"):
        prepare(run)
