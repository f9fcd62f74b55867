"""Random weights that a backbone from scratch starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.bundle.shapes import CATEGORY, WHOLE_WORD, expected_shapes
from model.network.banks import RowIndex
from model.network.config import BackboneConfig
from model.network.network import NO_ADDITIONS, EncoderBatch, Vip5Network
from model.network.weights import load_backbone, load_domain
from model.training.initial_weights import InitialWeights

CONFIG = BackboneConfig(
    vocab_size=300, d_model=32, d_kv=16, d_ff=64, num_heads=2, num_layers=2, num_decoder_layers=2, dropout_rate=0.0
)


@pytest.mark.parametrize("embedding_std", [1.0, 0.1, 0.02])
def test_logits_begin_with_a_standard_deviation_of_one_for_embeddings_of_any(embedding_std: float) -> None:
    network = Vip5Network(CONFIG, [NO_ADDITIONS]).eval()
    initial = InitialWeights(CONFIG, 0, embedding_std)
    load_backbone(network, initial.tensors(expected_shapes(CONFIG), "backbone"))
    load_domain(network, 0, initial.domain("shop", NO_ADDITIONS, {}))
    random = torch.Generator().manual_seed(1)
    ids, targets = torch.randint(2, 300, (2, 16, 12), generator=random)
    nothing = torch.zeros_like(ids)
    batch = EncoderBatch(ids, nothing, nothing, torch.zeros(16, 0, 0), RowIndex(0, 0), is_padded=False)
    with torch.no_grad():
        logits = network(batch, targets)
    assert 0.8 < float(logits.std()) < 1.25
    assert torch.allclose(network.shared.std(), torch.tensor(embedding_std), rtol=0.05)


@pytest.mark.parametrize(("embedding_std", "expected"), [(1.0, 1.0), (2.0, 2.0), (0.1, 0.0)])
def test_tables_of_words_and_categories_begin_at_0_beside_small_embeddings(
    embedding_std: float, expected: float
) -> None:
    layout = replace(NO_ADDITIONS, whole_word_rows=64, category_rows=16)
    found = InitialWeights(CONFIG, 0, embedding_std).domain("shop", layout, {})
    for name in (WHOLE_WORD, CATEGORY):
        assert torch.allclose(found[name].std(), torch.tensor(expected), rtol=0.2)


def test_what_is_added_to_embeddings_begins_smaller_with_them() -> None:
    shapes = expected_shapes(CONFIG)
    large, small = (InitialWeights(CONFIG, 0, std).tensors(shapes, "backbone") for std in (1.0, 0.25))
    changed = {name for name in shapes if not torch.equal(large[name], small[name])}
    added = {name for name in shapes if name.endswith((".o.weight", ".wo.weight"))}
    assert len(added) == 2 * 2 + 2 * 3  # of two layers each: attention and feed-forward; the decoder's reading
    assert changed == added | {"shared.weight"}
    assert all(torch.allclose(small[name], large[name] / 2) for name in added)
