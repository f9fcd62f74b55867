"""Ranking metrics with confidence intervals.

Ranks count from 1; 0 means that the target is not among the answered items. Each question has one target, so the hit
rate equals the recall, and the ideal ranking has the target first.
"""

# Q questions, U users that were asked, M statistics, R resamples

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluation.options import NUM_ANSWERED

CUTOFFS = (1, 5, NUM_ANSWERED)
CONFIDENCE = 0.95
NUM_RESAMPLES = 1000

Floats = NDArray[np.float64]
Measure = Callable[[Floats], Mapping[str, Floats]]
"""Computes named metrics [...] from summed statistics [..., M]."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """The wider side of the interval."""
        return max(self.high - self.value, self.value - self.low)


def ranking_statistics(ranks: NDArray[np.int64]) -> dict[str, Floats]:
    """Hits and gains at every cutoff, and the reciprocal rank, of each of Q questions."""
    is_found = ranks > 0
    gain = np.where(is_found, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)
    columns: dict[str, Floats] = {}
    for k in CUTOFFS:
        is_hit = is_found & (ranks <= k)
        columns[f"hr@{k}"] = is_hit.astype(np.float64)
        columns[f"ndcg@{k}"] = np.where(is_hit, gain, 0.0)
    is_answered = is_found & (ranks <= NUM_ANSWERED)
    columns[f"mrr@{NUM_ANSWERED}"] = np.where(is_answered, 1.0 / np.maximum(ranks, 1), 0.0)
    return columns


def mean_estimates(columns: Mapping[str, Floats], users: NDArray[np.int64], seed: int) -> dict[str, Estimate]:
    """Means over all questions, with intervals from resampling users."""

    def means(sums: Floats) -> Mapping[str, Floats]:
        return {name: sums[..., place] / sums[..., -1] for place, name in enumerate(columns)}

    statistics = np.column_stack([*columns.values(), np.ones(len(users))])
    return estimates(means, statistics, users, seed)


def estimates(measure: Measure, statistics: Floats, users: NDArray[np.int64], seed: int) -> dict[str, Estimate]:
    """Metrics over all questions, with intervals from the percentile bootstrap over users.

    Users are resampled rather than questions, because the answers to one user's questions are not independent.
    """
    by_user = _summed_by_user(statistics, users)
    values = measure(by_user.sum(0))
    resampled = measure(_resampled_sums(by_user, seed))
    tail = (1 - CONFIDENCE) / 2
    figures = {}
    for name, value in values.items():
        low, high = np.quantile(resampled[name], (tail, 1 - tail))
        figures[name] = Estimate(value=float(value), low=float(low), high=float(high))
    return figures


def _summed_by_user(statistics: Floats, users: NDArray[np.int64]) -> Floats:
    """[Q, M] → [U, M]."""
    asked, place = np.unique(users, return_inverse=True)
    sums = np.zeros((len(asked), statistics.shape[1]))
    np.add.at(sums, place, statistics)
    return sums


def _resampled_sums(by_user: Floats, seed: int) -> Floats:
    """Sums over users drawn with replacement, [R, M]."""
    rng = np.random.default_rng(seed)
    num_users = len(by_user)
    sums = np.empty((NUM_RESAMPLES, by_user.shape[1]))
    for resample in range(NUM_RESAMPLES):
        weights = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        sums[resample] = weights @ by_user
    return sums
