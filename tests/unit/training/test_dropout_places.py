"""Where training drops out: in all of T5's places, or in the residual path only."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor
from torch.nn import functional

from model.network import stacks
from model.network.dropout import dropout
from model.training.config import read_run
from model.training.material import material_of
from model.training.preparation import prepare
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run

_NUM_BLOCKS = 2  # of the encoder and of the decoder


@pytest.mark.parametrize(
    ("places", "in_attention", "elsewhere"),
    [
        ("all", 3 * _NUM_BLOCKS, 2 + 3 * _NUM_BLOCKS + 2 + 4 * _NUM_BLOCKS),
        ("residual", 0, 2 + 2 * _NUM_BLOCKS + 3 * _NUM_BLOCKS),
    ],
)
def test_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: str, in_attention: int, elsewhere: int
) -> None:
    """Both have the encoder's ends and what each sub-layer adds; T5 the decoder's ends and inside feed-forward, too."""
    text = FROM_SCRATCH.replace("batch_size = 4", f'batch_size = 4\ndropout = 0.5\ndropout_places = "{places}"')
    material = material_of(prepare(read_run(write_run(tmp_path, text))))
    shares: list[float] = []
    attention_shares: list[float] = []

    def dropped(x: Tensor, share: float, *, is_training: bool) -> Tensor:
        shares.append(share)
        return dropout(x, share, is_training=is_training)

    def attended(
        q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None, dropout_p: float, scale: float
    ) -> Tensor:
        attention_shares.append(dropout_p)
        return attend(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, scale=scale)

    attend = functional.scaled_dot_product_attention
    monkeypatch.setattr(stacks, "dropout", dropped)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", attended)
    examples = material.batches("train", 1)
    material.model.train()(**material.collator([examples[number] for number in range(4)]))
    assert sum(share > 0 for share in attention_shares) == in_attention
    assert sum(share > 0 for share in shares) == elsewhere
