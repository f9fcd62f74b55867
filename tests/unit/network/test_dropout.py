"""Dropout that is drawn by bytes: its share, its scale, its gradient."""

from __future__ import annotations

import pytest
import torch

from model.network.dropout import dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.001, 0.999])
def test_the_share_is_zeroed_and_the_mean_is_kept(share: float) -> None:
    torch.manual_seed(0)
    kept = dropout(torch.ones(999, 1001), share, is_training=True)
    rounded = max(1, round(share * 256)) / 256 if share < 0.9 else 255 / 256
    assert abs(float((kept == 0).float().mean()) - rounded) < 0.003
    values = kept[kept != 0].unique()
    torch.testing.assert_close(values, torch.tensor([1 / (1 - rounded)]))


def test_the_gradient_is_that_of_what_was_kept() -> None:
    x = torch.ones(64, 33, requires_grad=True)
    kept = dropout(x, 0.3, is_training=True)
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, kept.detach())


def test_a_seed_gives_the_same_and_every_row_another() -> None:
    torch.manual_seed(3)
    first = dropout(torch.ones(2, 400), 0.5, is_training=True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(torch.ones(2, 400), 0.5, is_training=True))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize(("share", "is_training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped_without_a_share_or_outside_of_training(share: float, is_training: bool) -> None:  # noqa: FBT001
    x = torch.ones(3, 4)
    assert dropout(x, share, is_training=is_training) is x
