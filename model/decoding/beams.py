"""The step that both beam searches share: divides candidates into finished, continued and pruned ones.

The rules are those of Hugging Face's search: of the best 2·K candidates, `</s>` among the first K finishes, and the
best K others continue.
"""

# B rows, K beams, C candidates, sorted best first

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NEG_INF = float("-inf")
"""Score of an unused entry for a beam, candidate or item."""


@dataclass(frozen=True)
class SpecialIds:
    """Token ids with a meaning for decoding."""

    start: int
    eos: int


class Stepper(Protocol):
    """The decoder, for a beam search: one call per step."""

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Feed the next token of each beam: tokens [B, n] → logits [B, n, V] in float32.

        parents [B, n] are the beams of the last step that each beam continues; None at the first step.
        """
        ...


@dataclass(frozen=True)
class Selection:
    """Division of one step's candidates, which are sorted by score. Indices point into the candidates."""

    is_finished: Tensor  # [B, C]
    next_index: Tensor  # [B, K]
    next_scores: Tensor  # [B, K], sums of log-probabilities; NEG_INF beyond the beams that continue


def select(scores: Tensor, is_eos: Tensor, max_beams: int, num_beams: Tensor) -> Selection:
    """Divide candidates with scores [B, C], best first.

    Each row has its own `num_beams` [B, 1], at most `max_beams` (K).
    """
    is_valid = scores > NEG_INF
    rank = torch.arange(scores.shape[1], device=scores.device)
    is_finished = is_eos & is_valid & (rank < num_beams)
    continues = ~is_eos & is_valid
    continues &= continues.cumsum(1) <= num_beams
    kept = torch.where(continues, scores, NEG_INF)
    if kept.shape[1] < max_beams:
        kept = torch.nn.functional.pad(kept, (0, max_beams - kept.shape[1]), value=NEG_INF)
    next_scores, next_index = kept.topk(max_beams, dim=1)
    return Selection(
        is_finished=is_finished,
        next_index=next_index.clamp(max=scores.shape[1] - 1),
        next_scores=next_scores,
    )
