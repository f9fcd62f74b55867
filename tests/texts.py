"""One-beam texts over a stepper of beam searches, whose rows are all at the same position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.decoding.beams import SpecialIds, Stepper
from model.decoding.text import BeamOptions, Hypothesis, RunningText, Sampling, TextSearch, step_texts


class InStep:
    """Feeds all rows at each step, ended ones included, and returns the logits of the running ones."""

    def __init__(self, stepper: Stepper, num_rows: int) -> None:
        self._stepper = stepper
        self._tokens = torch.zeros(num_rows, 1, dtype=torch.int64)
        self._parents: Tensor | None = None

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        self._tokens[list(rows), 0] = tokens
        logits = self._stepper.step(self._tokens, self._parents)[:, 0]
        self._parents = torch.zeros_like(self._tokens)
        return logits[list(rows)]


def decode_one_beam(
    stepper: Stepper,
    sampling: Sequence[Sampling],
    max_new_tokens: Sequence[int],
    special: SpecialIds,
    *,
    on_token: Callable[[int, int], bool] | None = None,
) -> list[Hypothesis]:
    """One text per row; `on_token(row, token)` is called with every token and returns False to end the row."""
    texts = [RunningText(each, most, special) for each, most in zip(sampling, max_new_tokens, strict=True)]
    running = dict(enumerate(texts))
    rows = InStep(stepper, len(texts))
    while running:
        for row, token in step_texts(rows, running, torch.device("cpu")).items():
            is_wanted = token is None or on_token is None or on_token(row, token)
            if texts[row].has_ended or not is_wanted:
                del running[row]
    return [text.hypothesis for text in texts]


def search_text(stepper: Stepper, options: BeamOptions, special: SpecialIds) -> list[Hypothesis]:
    """The K best texts of the stepper's only row, best first."""
    search = TextSearch(stepper, options, special)
    while not search.has_ended:
        search.step()
    return search.ranked()
