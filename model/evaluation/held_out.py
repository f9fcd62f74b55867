"""The held-out part of a dataset: its users, their histories, targets and candidates.

The model and all baselines get the same users, targets and candidates.
"""

# N items of the dataset

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.datasets.dataset import NUM_HELD_OUT, Dataset, Review
from model.errors import DatasetError
from model.evaluation.options import EvaluationOptions
from model.planning.domain import ServedDomain

_NAMED_IN_ERROR = 3

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Users and items are rows of the dataset."""

    dataset: Dataset
    options: EvaluationOptions
    is_returnable: NDArray[np.bool_]  # [N], active in the domain
    _candidates: dict[int, Rows] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, dataset: Dataset, domain: ServedDomain, options: EvaluationOptions) -> HeldOut:
        """Raises DatasetError if an item of the dataset is not in the domain's catalog."""
        rows = [domain.catalog.row_of(item_id) for item_id in dataset.catalog.item_ids]
        missing = [item_id for item_id, row in zip(dataset.catalog.item_ids, rows, strict=True) if row is None]
        if missing:
            named = ", ".join(missing[:_NAMED_IN_ERROR]) + (", …" if len(missing) > _NAMED_IN_ERROR else "")
            raise DatasetError(
                f"{len(missing)} of {len(rows)} items of {dataset.provenance.name} are not in the catalog of "
                f"{domain.name}: {named}; evaluate with the dataset that the domain was trained on"
            )
        for user, given in dataset.negatives.items():
            if len(given) and not 0 <= given.min() <= given.max() < len(rows):
                raise DatasetError(
                    f"{dataset.provenance.name}: the negatives of user {user} are items {given.min()} to "
                    f"{given.max()}, but the catalog has rows 0 to {len(rows) - 1}; prepare the dataset again"
                )
        return cls(dataset, options, domain.catalog.is_active[np.asarray(rows, dtype=np.int64)])

    @cached_property
    def users(self) -> Rows:
        """Users with a history and a target, or a sample of them, in ascending order."""
        users = self.dataset.sequences.users(self.options.split)
        if not len(users):
            raise DatasetError(
                f"no user of {self.dataset.provenance.name} has the {NUM_HELD_OUT[self.options.split] + 2} interactions"
                f" that the split {self.options.split} needs; prepare a dataset with longer histories"
            )
        return self._sample(users, self.options.num_users)

    @cached_property
    def exact_users(self) -> Rows:
        """The users whose ranking is also computed exactly."""
        sampled = self._sample(self.users, self.options.num_exact)
        return sampled[np.isin(sampled, self.asked_users(among_candidates=False))]

    def asked_users(self, *, among_candidates: bool) -> Rows:
        """The users for whom there is an item to rank beside the target, among candidates or in the whole catalog.

        Any ranking of the target alone is a hit, so it measures nothing. Raises DatasetError if no user remains.
        """
        asked = self._users_of_candidates if among_candidates else self._users_of_catalog
        if not len(asked):
            where = "the candidates" if among_candidates else "the catalog"
            raise DatasetError(
                f"{self.dataset.provenance.name}: for none of {len(self.users)} users do {where} have an active item "
                "beside the target, which would always be a hit; evaluate other tasks, or with other data"
            )
        return asked

    @cached_property
    def _users_of_candidates(self) -> Rows:
        users = self.users
        return users[[self._has_others(self.candidates(user), user) for user in users.tolist()]]

    @cached_property
    def _users_of_catalog(self) -> Rows:
        users, returnable = self.users, np.flatnonzero(self.is_returnable)
        if not self.options.exclude_history:
            return users[[self._has_others(returnable[:2], user) for user in users.tolist()]]
        return users[[self._has_others(np.setdiff1d(returnable, self.history(user)), user) for user in users.tolist()]]

    def _has_others(self, rows: Rows, user: int) -> bool:
        return bool((self.is_returnable[rows] & (rows != self.target(user))).any())

    @cached_property
    def reviews(self) -> tuple[Review, ...]:
        """Reviews of the split with an explanation, by all users or a sample of them."""
        reviews = [
            review for review in self.dataset.reviews if review.split == self.options.split and review.explanation
        ]
        writers = np.unique([review.user for review in reviews])
        chosen = set(self._sample(writers, self.options.num_users).tolist())
        return tuple(review for review in reviews if review.user in chosen)

    def history(self, user: int) -> Rows:
        """The user's items before the target, oldest first."""
        return self.dataset.sequences.seen(user, self.options.split)

    def target(self, user: int) -> int:
        return self.dataset.sequences.target(user, self.options.split)

    def num_out_of_reach(self, users: Rows, *, among_candidates: bool) -> int:
        """Users whose target no ranking can have: it is not active, or excluded from the catalog with the history."""
        is_excluded = self.options.exclude_history and not among_candidates
        targets = ((user, self.target(user)) for user in users.tolist())
        return sum(
            not self.is_returnable[target] or (is_excluded and target in self.history(user)) for user, target in targets
        )

    def candidates(self, user: int) -> Rows:
        """The target and negatives, in an order that is drawn from the seed and the user.

        Negatives are the dataset's own, else a uniform sample of the returnable items that the user never had; there
        are fewer if the user has had almost all items, and none if all.
        """
        if user not in self._candidates:
            self._candidates[user] = self._draw_candidates(user)
        return self._candidates[user]

    def _draw_candidates(self, user: int) -> Rows:
        rng = np.random.default_rng((self.options.seed, user))
        had = self.dataset.sequences.of(user)
        given = self.dataset.negatives.get(user)
        if given is not None:
            negatives = np.setdiff1d(given, had)
        else:
            can_be_drawn = self.is_returnable.copy()
            can_be_drawn[had] = False
            unknown = np.flatnonzero(can_be_drawn)
            negatives = rng.choice(unknown, size=min(self.options.num_negatives, len(unknown)), replace=False)
        return rng.permutation(np.append(negatives, self.target(user)))

    def _sample(self, users: Rows, most: int | None) -> Rows:
        if most is None or most >= len(users):
            return users
        return np.sort(np.random.default_rng(self.options.seed).choice(users, size=most, replace=False))


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of everything that an evaluation reads from a dataset."""
    digest = hashlib.sha256()
    digest.update(dataset.sequences.items.astype(np.int64).tobytes())
    digest.update(dataset.sequences.offsets.astype(np.int64).tobytes())
    for column in (dataset.catalog.item_ids, dataset.users.table.to_pylist(), dataset.reviews):
        digest.update(repr(tuple(column)).encode())
    for user in sorted(dataset.negatives):
        digest.update(repr((user, dataset.negatives[user].tolist())).encode())
    return digest.hexdigest()
