"""Log-probabilities of children from rounded logits."""

from __future__ import annotations

import torch

from model.decoding.logits import RoundedLogits, child_log_probs

B, N, V, D, M = 3, 4, 50, 8, 17


def _case() -> tuple[RoundedLogits, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states, head = torch.randn(B, N, D, generator=generator), torch.randn(V, D, generator=generator)
    exact = states @ head.t()
    noise = 0.2 * torch.randn(exact.shape, generator=generator)
    # Children of a beam are distinct.
    pairs = torch.stack([torch.randperm(N * V, generator=generator)[:M] for _ in range(B)])
    return RoundedLogits(exact + noise, states, head), exact, pairs // V, pairs % V, torch.rand(B, M) > 0.2


def test_logits_without_rounding_give_the_log_softmax() -> None:
    rounded, exact, parents, tokens, is_child = _case()
    unrounded = RoundedLogits(exact, rounded.states, rounded.head)
    expected = child_log_probs(exact, parents, tokens, is_child)
    assert torch.allclose(child_log_probs(unrounded, parents, tokens, is_child), expected, atol=1e-5)


def test_children_are_exact_up_to_the_normaliser_of_their_beam() -> None:
    rounded, exact, parents, tokens, is_child = _case()
    found = child_log_probs(rounded, parents, tokens, is_child)
    shift = found - exact.flatten(1).gather(1, parents * V + tokens)
    for row in range(B):
        for beam in range(N):
            own = shift[row, parents[row] == beam]
            assert torch.allclose(own, own[:1].expand_as(own), atol=1e-5)


def test_the_normaliser_uses_the_exact_logits_of_the_children() -> None:
    """With all tokens as children, nothing rounded is left."""
    rounded, exact, *_ = _case()
    pairs = torch.arange(N * V).expand(B, -1)
    found = child_log_probs(rounded, pairs // V, (pairs % V).contiguous(), torch.ones(B, N * V, dtype=torch.bool))
    assert torch.allclose(found, exact.log_softmax(-1).flatten(1), atol=1e-4)
    assert not torch.allclose(rounded.rounded.log_softmax(-1), exact.log_softmax(-1), atol=1e-2)


def test_places_that_are_no_child_change_nothing() -> None:
    rounded, _, parents, tokens, _ = _case()
    is_child = torch.ones(B, M, dtype=torch.bool)
    expected = child_log_probs(rounded, parents, tokens, is_child)
    more = [torch.cat([each, torch.zeros(B, 2, dtype=each.dtype)], dim=1) for each in (parents, tokens, is_child)]
    assert torch.equal(child_log_probs(rounded, *more)[:, :M], expected)
