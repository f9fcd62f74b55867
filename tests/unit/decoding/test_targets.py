"""Log-probabilities of targets, against each target fed alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.decoding import targets as module
from model.decoding.targets import Target, target_log_probs

START, VOCABULARY = 0, 5
CPU = torch.device("cpu")
TARGETS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6)


def logits_after(row: int, tokens: Sequence[int]) -> Tensor:
    """Any function of the row and of what was fed."""
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(hash((row, *tokens)) % 2**31))


class PrefixStepper:
    """Remembers what each beam was fed."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self._beams: list[list[tuple[int, ...]]] = []

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        self.widths.append(tokens.shape[1])
        if parents is None:
            self._beams = [[(token,) for token in row] for row in tokens.tolist()]
        else:
            pairs = zip(self._beams, parents.tolist(), tokens.tolist(), strict=True)
            self._beams = [[(*old[p], t) for p, t in zip(own, fed, strict=True)] for old, own, fed in pairs]
        return torch.stack([torch.stack([logits_after(row, b) for b in own]) for row, own in enumerate(self._beams)])


class Steppers:
    def __init__(self) -> None:
        self.made: list[PrefixStepper] = []

    def __call__(self, *, num_beams: int, max_length: int) -> PrefixStepper:
        assert num_beams > 0
        assert max_length > 0
        self.made.append(PrefixStepper())
        return self.made[-1]


def alone(row: int, target: Target) -> float:
    fed = (START, *target)
    log_probs = [logits_after(row, fed[: n + 1]).log_softmax(-1)[token] for n, token in enumerate(target)]
    return float(sum(log_probs))


@given(rows=st.lists(TARGETS, min_size=1, max_size=4), most=st.sampled_from([1, 4, 1000]))
@settings(max_examples=60, deadline=None)
def test_every_target_has_the_log_probability_that_it_has_alone(rows: list[list[Target]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_BEAMS", most)
        found = target_log_probs(Steppers(), rows, start=START, device=CPU)

    assert [len(own) for own in found] == [len(own) for own in rows]
    for row, (own, targets) in enumerate(zip(found, rows, strict=True)):
        assert own == pytest.approx([alone(row, target) for target in targets], abs=1e-5)


def test_what_targets_begin_with_is_decoded_once() -> None:
    steppers = Steppers()
    target_log_probs(steppers, [[(1, 2, 3), (1, 2, 4), (1, 3)]] * 2, start=START, device=CPU)

    assert [each.widths for each in steppers.made] == [[1, 1, 1]]
    target_log_probs(steppers, [[(1, 2, 3), (1, 2, 4), (1, 3, 1), (2, 1, 1)]], start=START, device=CPU)
    assert steppers.made[1].widths == [1, 2, 3]


def test_no_more_prefixes_are_decoded_at_once_than_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BEAMS", 8)
    steppers = Steppers()
    targets = [(token, token, 1) for token in range(VOCABULARY)]
    target_log_probs(steppers, [targets] * 4, start=START, device=CPU)

    assert [each.widths for each in steppers.made] == [[1, 2, 2], [1, 2, 2], [1, 1, 1]]
