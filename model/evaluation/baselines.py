"""Baseline recommenders, fitted on training interactions only.

They are evaluated on the same users, targets and candidates as the model and by the same rules: inactive items are not
returned. Ties go to the item that comes first in the catalog.
"""

# N items

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self._counts = _counts(held_out).astype(np.float64)

    def scores(self, _user: int, /) -> Floats:
        return self._counts


def _counts_together(dataset: Dataset) -> sparse.csr_array:
    """How many training histories have both of two items, [N, N]."""
    histories = [np.unique(history) for history in training_histories(dataset)]
    holders = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    holds = sparse.csr_array(
        (np.ones(len(holders), dtype=np.int64), (holders, np.concatenate(histories))),
        shape=(len(histories), len(dataset.catalog)),
    )
    return sparse.csr_array(holds.T @ holds)


class CoOccurrence:
    """Scores an item by the training histories with both it and the user's last item; popularity breaks ties."""

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out
        counts = _counts(held_out)
        self._tie_break = counts / (counts.max(initial=0) + 1.0)  # below 1, so it only breaks ties
        self._together = _counts_together(held_out.dataset)

    def scores(self, user: int, /) -> Floats:
        scores: Floats = self._tie_break.copy()
        last = int(self._held_out.history(user)[-1])
        start, end = self._together.indptr[last], self._together.indptr[last + 1]
        scores[self._together.indices[start:end]] += self._together.data[start:end]
        scores[last] = self._tie_break[last]
        return scores


class DecayedCoOccurrence:
    """Scores an item by its cosine with the recent items of a history, each counting 0.7 times as much as the next one.

    The cosine is that of the users who had them in training, with one more user for each item.
    """

    _DECAY, _NUM_RECENT = 0.7, 20

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out
        together = _counts_together(held_out.dataset).astype(np.float64)
        num_users = together.diagonal()
        together.setdiag(0)
        scale = sparse.diags_array(1 / np.sqrt(num_users + 1))
        self._cosines = sparse.csr_array(scale @ together @ scale)
        self._tie_break = num_users / (num_users.max(initial=0) + 1.0) * 1e-6

    def scores(self, user: int, /) -> Floats:
        recent = self._held_out.history(user)[-self._NUM_RECENT :]
        weights = self._DECAY ** np.arange(len(recent))[::-1]
        scores: Floats = self._tie_break + weights @ self._cosines[recent]
        return scores


def fit_baseline(name: str, held_out: HeldOut) -> Baseline:
    """Fit a baseline by name; raises TrainingError if its library is not installed."""
    makers: dict[str, Callable[[HeldOut], Baseline]] = {
        "random": RandomOrder,
        "popularity": Popularity,
        "co-occurrence": CoOccurrence,
        "decayed-co-occurrence": DecayedCoOccurrence,
        "sasrec": _fit_sasrec,
    }
    return makers[name](held_out)


def catalog_ranks(baseline: Baseline, held_out: HeldOut) -> NDArray[np.int64]:
    """Rank of each asked user's target in the whole catalog; 0 if it is not among the answered items."""
    users = held_out.asked_users(among_candidates=False)
    return ranks_in(catalog_lists(baseline, held_out), [held_out.target(user) for user in users.tolist()])


def candidate_ranks(baseline: Baseline, held_out: HeldOut) -> NDArray[np.int64]:
    """Rank of each asked user's target among the user's candidates; 0 if it is not among the answered items."""
    users = held_out.asked_users(among_candidates=True)
    return ranks_in(candidate_lists(baseline, held_out), [held_out.target(user) for user in users.tolist()])


def catalog_lists(baseline: Baseline, held_out: HeldOut) -> list[Rows]:
    """What each asked user is recommended of the whole catalog, best first."""
    lists = []
    for user in held_out.asked_users(among_candidates=False).tolist():
        is_eligible = held_out.is_returnable.copy()
        if held_out.options.exclude_history:
            is_eligible[held_out.history(user)] = False
        lists.append(_best(baseline.scores(user), is_eligible))
    return lists


def candidate_lists(baseline: Baseline, held_out: HeldOut) -> list[Rows]:
    """What each asked user is recommended of the user's candidates, best first."""
    lists = []
    for user in held_out.asked_users(among_candidates=True).tolist():
        is_candidate = np.zeros_like(held_out.is_returnable)
        is_candidate[held_out.candidates(user)] = True
        lists.append(_best(baseline.scores(user), is_candidate & held_out.is_returnable))
    return lists


def ranks_in(lists: Sequence[Rows], targets: Sequence[int]) -> NDArray[np.int64]:
    """Rank of each target in its list, from 1; 0 if it is not there."""
    found = [np.flatnonzero(rows == target) for rows, target in zip(lists, targets, strict=True)]
    return np.array([int(places[0]) + 1 if len(places) else 0 for places in found], dtype=np.int64)


def training_histories(dataset: Dataset) -> list[Rows]:
    """The training interactions of each user."""
    return [dataset.sequences.seen(user, "train") for user in range(len(dataset.sequences))]


def _counts(held_out: HeldOut) -> NDArray[np.int64]:
    """The number of training interactions of each item, [N]."""
    return held_out.dataset.sequences.training_counts(len(held_out.dataset.catalog))


def _best(scores: Floats, is_eligible: NDArray[np.bool_]) -> Rows:
    """The items to answer with, best first; ties go to the item that comes first in the catalog."""
    scores = np.where(is_eligible, scores, -np.inf)
    lowest = -np.inf if len(scores) <= NUM_ANSWERED else np.partition(scores, -NUM_ANSWERED)[-NUM_ANSWERED]
    rows = np.flatnonzero((scores >= lowest) & (scores > -np.inf))
    return rows[np.argsort(-scores[rows], kind="stable")][:NUM_ANSWERED]


def _fit_sasrec(held_out: HeldOut) -> Baseline:
    try:
        from model.evaluation.sasrec import SelfAttention  # noqa: PLC0415 — an optional library
    except ImportError as error:
        raise TrainingError(
            f"the baseline sasrec needs RecTools, which is not installed ({error}); install vip5-serve[train,sasrec] "
            "into a separate environment, because RecTools needs numpy below 2"
        ) from error
    return SelfAttention.fit(held_out)
