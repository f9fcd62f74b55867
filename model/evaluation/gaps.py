"""Metrics by group, and the largest differences between groups."""

# Q questions, G groups, U users, M statistics

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.evaluation.held_out import Rows
from model.evaluation.metrics import Estimate, Floats, Measured, percentiles, resampled_weights, summed_by_user

LEAST_USERS = 10
"""Groups of fewer users are shown, but not compared: their differences are chance."""


@dataclass(frozen=True)
class Group:
    """The metrics of a group's questions."""

    value: str
    num_users: int
    num_questions: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Gap:
    """The two groups that differ most in a metric; `difference` is that of `higher` minus `lower`."""

    metric: str
    higher: str
    lower: str
    difference: Estimate
    share: float
    """The difference as a share of the greater of both values."""

    @property
    def is_certain(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Groups:
    """Metrics by group of a column, and the widest gap of each metric.

    `num_without_value` questions belong to no group. `largest` is the gap with the largest share, of those whose
    interval excludes 0; None if there is none.
    """

    column: str
    groups: tuple[Group, ...]
    num_without_value: int
    gaps: tuple[Gap, ...]
    largest: Gap | None


@dataclass(frozen=True, eq=False)
class Questions:
    """Some metrics of questions, and the group of each question [Q]; -1 without one."""

    measured: Measured
    codes: Rows

    def of(self, code: int) -> Measured:
        return self.measured.among(self.codes == code)


def group_gaps(kinds: Iterable[Questions], values: Sequence[str], seed: int) -> tuple[Gap, ...]:
    """The widest gap of each metric between groups of at least `LEAST_USERS` users."""
    return tuple(gap for questions in kinds for gap in _gaps(questions, values, seed))


def largest_gap(gaps: Sequence[Gap]) -> Gap | None:
    """Of those whose interval excludes 0, the one with the largest share."""
    return max((gap for gap in gaps if gap.is_certain), key=lambda gap: gap.share, default=None)


def _gaps(questions: Questions, values: Sequence[str], seed: int) -> list[Gap]:
    compared = [code for code in range(len(values)) if len(np.unique(questions.of(code).users)) >= LEAST_USERS]
    if len(compared) < 2:
        return []
    figures = {code: questions.of(code).values() for code in compared}
    resampled: dict[tuple[int, int], dict[str, Floats]] = {}
    gaps = []
    for metric in figures[compared[0]]:
        higher = max(compared, key=lambda code: figures[code][metric])
        lower = min(compared, key=lambda code: figures[code][metric])
        difference = figures[higher][metric] - figures[lower][metric]
        if difference == 0:
            continue
        pair = (higher, lower)
        if pair not in resampled:
            resampled[pair] = differences(questions.of(higher), questions.of(lower), seed)
        estimate = percentiles(difference, resampled[pair][metric])
        greater = max(abs(figures[code][metric]) for code in pair)
        gaps.append(Gap(metric, values[higher], values[lower], estimate, difference / greater))
    return gaps


def differences(one: Measured, other: Measured, seed: int) -> dict[str, Floats]:
    """Metrics of one group minus those of the other, in resamples of the users of both.

    A user with questions in both groups is in both or in neither. Resamples without a user of one group are left out.
    """
    users = np.unique(np.concatenate([one.users, other.users]))
    first, second = (_sums(measured, users) for measured in (one, other))
    asked_first, asked_second = (np.isin(users, measured.users) for measured in (one, other))
    drawn = [
        (weights @ first, weights @ second)
        for weights in resampled_weights(len(users), seed)
        if weights @ asked_first and weights @ asked_second
    ]
    of_one = one.measure(np.array([sums for sums, _ in drawn]))
    of_other = other.measure(np.array([sums for _, sums in drawn]))
    return {name: of_one[name] - of_other[name] for name in of_one}


def _sums(measured: Measured, users: Rows) -> Floats:
    """Summed statistics of all `users`, [U, M]; zeros for those without a question here."""
    sums = np.zeros((len(users), measured.statistics.shape[1]))
    sums[np.searchsorted(users, np.unique(measured.users))] = summed_by_user(measured.statistics, measured.users)
    return sums
