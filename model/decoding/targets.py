"""Log-probabilities of given targets. Targets of a row that begin alike share the steps of their common prefix."""

# B rows, N distinct prefixes of one length, K targets of a row, V vocabulary

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from model.decoding.beams import Stepper

Target: TypeAlias = tuple[int, ...]

MAX_BEAMS = 2_048
"""Most prefixes of all rows that are decoded at once: each has logits over the vocabulary."""


class NewStepper(Protocol):
    """Begins a decode loop over the rows."""

    def __call__(self, *, num_beams: int, max_length: int) -> Stepper: ...


@dataclass(frozen=True)
class _Level:
    """The prefixes of one length of a row's targets, and what follows them."""

    tokens: list[int]  # [N], last token of each prefix
    parents: list[int]  # [N], place of each prefix without its last token among those that are one shorter
    prefixes: list[int]  # [K], place of each target's prefix, 0 if the target has ended
    following: list[int]  # [K], next token of each target, 0 if it has ended
    continues: list[int]  # [K], 0 if the target has ended, else 1


_ENDED = _Level([0], [0], [], [], [])


def target_log_probs(
    new_stepper: NewStepper, targets: Sequence[Sequence[Target]], *, start: int, device: torch.device
) -> list[tuple[float, ...]]:
    """The log-probability of every target of every row, in order; each row has at least one."""
    width = max(1, MAX_BEAMS // len(targets))
    found: list[tuple[float, ...]] = [() for _ in targets]
    for begin in range(0, max(map(len, targets)), width):
        parts = [tuple(own[begin : begin + width]) for own in targets]
        # A row without targets in this part repeats its first.
        sums = _sums(new_stepper, [part or (own[0],) for part, own in zip(parts, targets, strict=True)], start, device)
        found = [(*known, *row[: len(part)]) for known, row, part in zip(found, sums.tolist(), parts, strict=True)]
    return found


def _sums(new_stepper: NewStepper, targets: Sequence[tuple[Target, ...]], start: int, device: torch.device) -> Tensor:
    """Sums of log-probabilities [B, K], without meaning beyond a row's own targets."""
    levels_of = {own: _levels(own, start) for own in set(targets)}
    num_targets = max(map(len, targets))
    num_levels = max(map(len, levels_of.values()))
    num_beams = max(len(level.tokens) for levels in levels_of.values() for level in levels)
    stepper = new_stepper(num_beams=num_beams, max_length=num_levels)
    sums = torch.zeros(len(targets), num_targets, device=device)
    for number in range(num_levels):
        rows = [own[number] if number < len(own) else _ENDED for own in map(levels_of.__getitem__, targets)]
        width = max(len(level.tokens) for level in rows)
        parents = _table((level.parents for level in rows), width, device) if number else None
        logits = stepper.step(_table((level.tokens for level in rows), width, device), parents)  # [B, N, V]
        prefixes = _table((level.prefixes for level in rows), num_targets, device)
        following = _table((level.following for level in rows), num_targets, device)
        chosen = logits[torch.arange(len(rows), device=device).unsqueeze(1), prefixes, following]
        log_probs = chosen - logits.logsumexp(-1).gather(1, prefixes)
        sums += log_probs * _table((level.continues for level in rows), num_targets, device)
    return sums


def _levels(targets: tuple[Target, ...], start: int) -> list[_Level]:
    """A level for each length of a prefix, beginning with the empty one."""
    levels = []
    shorter: dict[Target, int] = {}
    for length in range(max(map(len, targets))):
        places: dict[Target, int] = {}
        for target in targets:
            if len(target) > length:
                places.setdefault(target[:length], len(places))
        levels.append(
            _Level(
                tokens=[prefix[-1] if prefix else start for prefix in places],
                parents=[shorter[prefix[:-1]] if prefix else 0 for prefix in places],
                prefixes=[places[target[:length]] if len(target) > length else 0 for target in targets],
                following=[target[length] if len(target) > length else 0 for target in targets],
                continues=[int(len(target) > length) for target in targets],
            )
        )
        shorter = places
    return levels


def _table(rows: Iterable[list[int]], width: int, device: torch.device) -> Tensor:
    """Rows as one tensor [B, width], filled up with zeros."""
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
