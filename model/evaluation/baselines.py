"""Baseline recommenders, fitted on training interactions only.

They are evaluated on the same users, targets and candidates as the model and by the same rules: inactive items are not
returned. Ties go to the item that comes first in the catalog.
"""

# N items

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.datasets.dataset import Dataset
from model.errors import TrainingError
from model.evaluation.held_out import HeldOut, Rows
from model.evaluation.metrics import Floats
from model.evaluation.options import NUM_ANSWERED


class Baseline(Protocol):
    """Scores all items for a user, [N]: higher is better, -inf for items that cannot be recommended."""

    def scores(self, user: int, /) -> Floats: ...


class RandomOrder:
    """A shuffled catalog for each user."""

    def __init__(self, held_out: HeldOut) -> None:
        self._num_items = len(held_out.dataset.catalog)
        self._seed = held_out.options.seed

    def scores(self, user: int, /) -> Floats:
        return np.random.default_rng((self._seed, user, 1)).random(self._num_items)


class Popularity:
    """Scores an item by its number of training interactions."""

    def __init__(self, held_out: HeldOut) -> None:
        self._counts = training_counts(held_out.dataset).astype(np.float64)

    def scores(self, _user: int, /) -> Floats:
        return self._counts


class CoOccurrence:
    """Scores an item by the training histories with both it and the user's last item; popularity breaks ties."""

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out
        counts = training_counts(held_out.dataset)
        self._tie_break = counts / (counts.max(initial=0) + 1.0)  # below 1, so it only breaks ties
        histories = [np.unique(history) for history in training_histories(held_out.dataset)]
        holders = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        holds = sparse.csr_array(
            (np.ones(len(holders), dtype=np.int64), (holders, np.concatenate(histories))),
            shape=(len(histories), len(counts)),
        )
        self._together = sparse.csr_array(holds.T @ holds)

    def scores(self, user: int, /) -> Floats:
        scores: Floats = self._tie_break.copy()
        last = int(self._held_out.history(user)[-1])
        start, end = self._together.indptr[last], self._together.indptr[last + 1]
        scores[self._together.indices[start:end]] += self._together.data[start:end]
        scores[last] = self._tie_break[last]
        return scores


def fit_baseline(name: str, held_out: HeldOut) -> Baseline:
    """Fit a baseline by name; raises TrainingError if its library is not installed."""
    makers: dict[str, Callable[[HeldOut], Baseline]] = {
        "random": RandomOrder,
        "popularity": Popularity,
        "co-occurrence": CoOccurrence,
        "sasrec": _fit_sasrec,
    }
    return makers[name](held_out)


def catalog_ranks(baseline: Baseline, held_out: HeldOut) -> NDArray[np.int64]:
    """Rank of each asked user's target in the whole catalog; 0 if it is not among the answered items."""
    ranks = []
    for user in held_out.asked_users(among_candidates=False).tolist():
        is_eligible = held_out.is_returnable.copy()
        if held_out.options.exclude_history:
            is_eligible[held_out.history(user)] = False
        ranks.append(_rank(baseline.scores(user), is_eligible, held_out.target(user)))
    return np.array(ranks)


def candidate_ranks(baseline: Baseline, held_out: HeldOut) -> NDArray[np.int64]:
    """Rank of each asked user's target among the user's candidates; 0 if it is not among the answered items."""
    ranks = []
    for user in held_out.asked_users(among_candidates=True).tolist():
        is_candidate = np.zeros_like(held_out.is_returnable)
        is_candidate[held_out.candidates(user)] = True
        ranks.append(_rank(baseline.scores(user), is_candidate & held_out.is_returnable, held_out.target(user)))
    return np.array(ranks)


def training_histories(dataset: Dataset) -> list[Rows]:
    """The training interactions of each user."""
    return [dataset.sequences.seen(user, "train") for user in range(len(dataset.sequences))]


def training_counts(dataset: Dataset) -> NDArray[np.int64]:
    """The number of training interactions of each item, [N]."""
    seen = np.concatenate([np.zeros(0, dtype=np.int64), *training_histories(dataset)])
    return np.bincount(seen, minlength=len(dataset.catalog))


def _rank(scores: Floats, is_eligible: NDArray[np.bool_], target: int) -> int:
    """From 1; 0 if the target is not among the answered items, or cannot be recommended."""
    scores = np.where(is_eligible, scores, -np.inf)
    if scores[target] == -np.inf:
        return 0
    is_before = scores > scores[target]
    is_before[:target] |= scores[:target] == scores[target]
    rank = 1 + int(is_before.sum())
    return rank if rank <= NUM_ANSWERED else 0


def _fit_sasrec(held_out: HeldOut) -> Baseline:
    try:
        from model.evaluation.sasrec import SelfAttention  # noqa: PLC0415 — an optional library
    except ImportError as error:
        raise TrainingError(
            f"the baseline sasrec needs RecTools, which is not installed ({error}); install vip5-serve[train,sasrec] "
            "into a separate environment, because RecTools needs numpy below 2"
        ) from error
    return SelfAttention.fit(held_out)
