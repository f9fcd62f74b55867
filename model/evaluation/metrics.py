"""Ranking metrics with confidence intervals.

Ranks count from 1; 0 means that the target is not among the answered items. Each question has one target, so the hit
rate equals the recall, and the ideal ranking has the target first.
"""

# Q questions, U users that were asked, M statistics, R resamples

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True, eq=False)
class Measured:
    """Metrics of Q questions, which `measure` computes from the sums of their statistics."""

    users: NDArray[np.int64]  # [Q], who asked
    statistics: Floats  # [Q, M]
    measure: Measure

    @classmethod
    def means(cls, columns: Mapping[str, Floats], users: NDArray[np.int64]) -> Measured:
        """Means of named columns [Q]."""

        def means(sums: Floats) -> Mapping[str, Floats]:
            return {name: sums[..., place] / sums[..., -1] for place, name in enumerate(columns)}

        return cls(users, np.column_stack([*columns.values(), np.ones(len(users))]), means)

    def among(self, is_in: NDArray[np.bool_]) -> Measured:
        """The same metrics of some of the questions, [Q]."""
        return Measured(self.users[is_in], self.statistics[is_in], self.measure)

    def values(self) -> dict[str, float]:
        """The metrics without intervals."""
        return {name: float(value) for name, value in self.measure(self.statistics.sum(0)).items()}

    def estimates(self, seed: int) -> dict[str, Estimate]:
        """The metrics, with intervals from the percentile bootstrap over users.

        Users are resampled rather than questions, because the answers to one user's questions are not independent.
        """
        by_user = summed_by_user(self.statistics, self.users)
        sums = np.array([weights @ by_user for weights in resampled_weights(len(by_user), seed)])
        resampled = self.measure(sums)
        return {name: percentiles(value, resampled[name]) for name, value in self.values().items()}


def mean_estimates(columns: Mapping[str, Floats], users: NDArray[np.int64], seed: int) -> dict[str, Estimate]:
    """Means over all questions, with intervals from resampling users."""
    return Measured.means(columns, users).estimates(seed)


def percentiles(value: float, resampled: Floats) -> Estimate:
    """A metric with the interval of its values in R resamples, [R]."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Estimate(value=float(value), low=float(low), high=float(high))


def summed_by_user(statistics: Floats, users: NDArray[np.int64]) -> Floats:
    """[Q, M] → [U, M], users in ascending order."""
    asked, place = np.unique(users, return_inverse=True)
    sums = np.zeros((len(asked), statistics.shape[1]))
    np.add.at(sums, place, statistics)
    return sums


def resampled_weights(num_users: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each user, [U], is drawn in each of R resamples with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(NUM_RESAMPLES):
        yield np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
