"""The loss that VIP5 optimises."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

IGNORED = -100


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each target token, [B, T], 0 at padding; logits [B, T, V], targets [B, T] padded with -100."""
    is_token = targets != IGNORED
    log_probs = functional.log_softmax(logits, dim=-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -log_probs * is_token


def vip5_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over a sample's tokens, divided by the target length once more, mean over the batch.

    The authors' trainer divides by the length twice, which gives short targets a larger weight.
    """
    lengths = (targets != IGNORED).sum(1)
    per_sample = token_losses(logits, targets).sum(1) / lengths
    return (per_sample / lengths).mean()
