"""Logits of a step, of which a search needs those of few tokens exactly."""

# B rows, n beams, M children of all beams of a row, V vocabulary, D width

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class RoundedLogits:
    """Rounded logits of the whole vocabulary, and what computes those of some tokens in float32.

    The rounded ones only serve the normaliser, in which exact ones replace them as far as they are known.
    """

    rounded: Tensor  # [B, n, V]
    states: Tensor  # [B, n, D], the factor of the head
    head: Tensor  # [V, D]

    def log_probs(self, parents: Tensor, tokens: Tensor, is_child: Tensor) -> Tensor:
        """Log-probabilities [B, M] of tokens after the beams `parents`; places that are no child have any value."""
        exact = self._exact(parents, tokens)
        rounded = self.rounded.flatten(1).gather(1, torch.add(tokens, parents, alpha=self.rounded.shape[-1]))
        total = self.rounded[..., 0] - self.rounded.log_softmax(-1)[..., 0]  # [B, n]; faster than logsumexp
        own = total.gather(1, parents)
        difference = ((exact - own).exp() - (rounded - own).exp()) * is_child
        correction = torch.zeros_like(total).scatter_add_(1, parents, difference)
        total = total + correction.clamp_(min=-0.999).log1p_()
        return exact - total.gather(1, parents)

    def _exact(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Each row of the head is read once, as beams mostly have the same children."""
        distinct, places = tokens.unique(return_inverse=True)
        num_rows, num_beams, width = self.states.shape
        by_beam = self.states.reshape(-1, width) @ self.head[distinct].t()  # [B·n, distinct]
        beams = parents + num_beams * torch.arange(num_rows, device=parents.device).unsqueeze(1)
        chosen: Tensor = by_beam[beams, places]
        return chosen


StepLogits: TypeAlias = Tensor | RoundedLogits
"""Logits [B, n, V] in float32, or rounded ones."""


def num_beams_of(logits: StepLogits) -> int:
    return logits.shape[1] if isinstance(logits, Tensor) else logits.states.shape[1]


def child_log_probs(logits: StepLogits, parents: Tensor, tokens: Tensor, is_child: Tensor) -> Tensor:
    """Log-probabilities [B, M] of tokens after the beams `parents`, both [B, M]."""
    if isinstance(logits, RoundedLogits):
        return logits.log_probs(parents, tokens, is_child)
    chosen = torch.add(tokens, parents, alpha=logits.shape[2])
    return logits.log_softmax(-1).flatten(1).gather(1, chosen)
