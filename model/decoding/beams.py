"""The one step that every beam search here repeats: of all candidates, some finish, some go on, the rest are pruned.

The rules are the ones of Hugging Face's search: of the best 2·K candidates, `</s>` within the first K ranks finishes,
and the best K others go on.
"""

# B rows, K beams, C candidates, sorted best first

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DEAD = float("-inf")
"""Score of a beam, candidate or hypothesis that is not there."""


@dataclass(frozen=True)
class SpecialIds:
    """Ids that steer decoding."""

    start: int
    eos: int


class Stepper(Protocol):
    """The network as a search sees it."""

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Feed one more token of each beam: tokens [B, n] → logits [B, n, V] in float32.

        parents [B, n] says which beam of the last step each one goes on from; None at the first step.
        """
        ...


@dataclass(frozen=True)
class Selection:
    """What becomes of the best candidates of one step. Indices point into the candidates, which are sorted by score."""

    is_finished: Tensor  # [B, C]
    next_index: Tensor  # [B, K]
    next_scores: Tensor  # [B, K], sums of log-probabilities; DEAD where fewer than K go on
    is_pruned: Tensor  # [B, C]


def select(scores: Tensor, is_eos: Tensor, num_beams: int, beams_of_rows: Tensor) -> Selection:
    """Divide candidates: scores [B, C], sorted best first. A row uses its own number of beams, [B, 1] and at most K."""
    is_alive = scores > DEAD
    rank = torch.arange(scores.shape[1], device=scores.device)
    is_finished = is_eos & is_alive & (rank < beams_of_rows)
    goes_on = ~is_eos & is_alive
    goes_on &= goes_on.cumsum(1) <= beams_of_rows
    kept = torch.where(goes_on, scores, DEAD)
    if kept.shape[1] < num_beams:
        kept = torch.nn.functional.pad(kept, (0, num_beams - kept.shape[1]), value=DEAD)
    next_scores, next_index = kept.topk(num_beams, dim=1)
    return Selection(
        is_finished=is_finished,
        next_index=next_index.clamp(max=scores.shape[1] - 1),
        next_scores=next_scores,
        is_pruned=is_alive & ~is_finished & ~goes_on,
    )


def best_pruned(selection: Selection, upper_bounds: Tensor) -> Tensor:
    """Largest of the upper bounds [B, C] of what was pruned, [B]; DEAD where nothing was."""
    return torch.where(selection.is_pruned, upper_bounds, DEAD).amax(1)
