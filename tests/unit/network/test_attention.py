"""Attention in slices of rows is attention."""

from __future__ import annotations

import pytest
import torch

from model.network import attention, stacks
from model.network.attention import attend, attend_in_slices, padding_mask
from tests.unit.network.networks import batch_for, network_of


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 8])
def test_slices_of_rows_give_what_all_rows_give(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(7, 2, 9, 4, generator=generator) for _ in range(3))
    positions = torch.randn(1, 2, 9, 9, generator=generator)
    is_token = torch.arange(9) < torch.tensor([9, 1, 4, 9, 2, 8, 5])[:, None]
    mask = padding_mask(is_token, torch.float32)
    monkeypatch.setattr(attention, "ELEMENTS_AT_ONCE", num_rows * positions.numel())
    with torch.inference_mode():
        assert torch.equal(attend_in_slices(q, k, v, positions, mask), attend(q, k, v, positions + mask))


def test_a_batch_whose_bias_is_large_is_encoded_like_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(["all"])
    batch = batch_for(network, 0)
    with torch.inference_mode():
        whole, mask = network.encode(batch)
        assert mask is not None, "a row is padded"
        monkeypatch.setattr(stacks, "ELEMENTS_AT_ONCE", 0)
        assert torch.equal(network.encode(batch)[0], whole)
