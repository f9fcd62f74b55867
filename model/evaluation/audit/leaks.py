"""What training and the identifiers tell of the test targets."""

# U users, N items of the dataset

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.bundle.columns import strings
from model.datasets.dataset import Dataset, Sequences, Split
from model.evaluation.audit.share import Share


@dataclass(frozen=True)
class LeakAudit:
    """Shares of the test targets, one per user with a history, if not said otherwise; examples are user ids."""

    next_number_test: Share | None  # the target's number is the history's largest plus one; None: no numbers
    next_number_val: Share | None  # the same of validation targets
    in_own_training: Share  # the target stands in the user's own training interactions
    in_own_history: Share  # the target stands in the history that the prompt shows
    in_training_reviews: Share  # a review of the target by the user is in split train: an explanation prompt has both
    test_reviews_in_training: Share  # of test reviews: the same user and item are in split train
    negatives_had: Share  # of given negatives: items that the user had
    never_trained_targets: Share  # the target is in no training interaction and no training review of anybody
    never_trained_items: Share  # of all items of the dataset: the same; examples are item ids


def audit_leaks(dataset: Dataset, numbers: NDArray[np.int64]) -> LeakAudit:
    """`numbers` has the items' identifiers as numbers, [N], and -1 for items whose identifier is none."""
    sequences = dataset.sequences
    tested = sequences.users("test").tolist()
    targets = {user: sequences.target(user, "test") for user in tested}
    trained = {(review.user, review.item) for review in dataset.reviews if review.split == "train"}
    is_trained = _trained_items(dataset)
    test_reviews = [(review.user, review.item) for review in dataset.reviews if review.split == "test"]
    user_ids = strings(dataset.users.table.column("user_id"))

    def share(users: Sequence[int], of: int = len(tested)) -> Share:
        return Share.named([user_ids[user] for user in users], of)

    return LeakAudit(
        next_number_test=_next_numbers(sequences, numbers, "test", user_ids),
        next_number_val=_next_numbers(sequences, numbers, "val", user_ids),
        in_own_training=share([user for user in tested if targets[user] in sequences.seen(user, "train")]),
        in_own_history=share([user for user in tested if targets[user] in sequences.seen(user, "test")]),
        in_training_reviews=share([user for user in tested if (user, targets[user]) in trained]),
        test_reviews_in_training=share(
            [user for user, item in test_reviews if (user, item) in trained], len(test_reviews)
        ),
        negatives_had=share(
            [user for user, items in dataset.negatives.items() for item in items if item in sequences.of(user)],
            sum(map(len, dataset.negatives.values())),
        ),
        never_trained_targets=share([user for user in tested if not is_trained[targets[user]]]),
        never_trained_items=Share.named(
            [dataset.catalog.item_ids[row] for row in np.flatnonzero(~is_trained)], len(dataset.catalog)
        ),
    )


def _trained_items(dataset: Dataset) -> NDArray[np.bool_]:
    """Items that a training prompt may hold as something that a user had, [N]."""
    is_trained = np.zeros(len(dataset.catalog), dtype=np.bool_)
    for user in range(len(dataset.sequences)):
        is_trained[dataset.sequences.seen(user, "train")] = True
    is_trained[[review.item for review in dataset.reviews if review.split == "train"]] = True
    return is_trained


def _next_numbers(
    sequences: Sequences, numbers: NDArray[np.int64], split: Split, user_ids: Sequence[str]
) -> Share | None:
    """Of users whose target has a number and who have one in their history."""
    assert split != "train"
    num_users, found = 0, []
    for user in range(len(sequences)):
        history = numbers[sequences.seen(user, split)]
        if not (history >= 0).any():
            continue
        target = numbers[sequences.target(user, split)]
        num_users += int(target >= 0)
        if target == history.max() + 1:
            found.append(user_ids[user])
    return Share.named(found, num_users) if num_users else None
