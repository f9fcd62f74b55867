"""Audit of leaks: what training data and identifiers reveal about the test targets."""

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
    """Unless noted, shares of the test targets, one per user with a history; examples are user ids."""

    next_number_test: Share | None  # the target's number is the history's largest plus one; None without numbers
    next_number_val: Share | None  # the same for validation targets
    in_own_training: Share  # the target is among the user's own training interactions
    in_own_history: Share  # the target is in the history that the prompt shows
    in_training_reviews: Share  # the user's review of the target is in the split train, as an explanation prompt
    test_reviews_in_training: Share  # of test reviews: the same user and item are in the split train
    negatives_had: Share  # of the dataset's negatives: items that the user had
    never_trained_targets: Share  # the target is in no user's training interactions or training reviews
    never_trained_items: Share  # of all items of the dataset: the same; examples are item ids


def audit_leaks(dataset: Dataset, numbers: NDArray[np.int64]) -> LeakAudit:
    """`numbers` are the items' identifiers, [N], or -1 for identifiers that are not numbers."""
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
            [dataset.catalog.item_ids[row] for row in np.flatnonzero(~is_trained).tolist()], len(dataset.catalog)
        ),
    )


def _trained_items(dataset: Dataset) -> NDArray[np.bool_]:
    """Items in the training interactions or training reviews of any user, [N]."""
    is_trained = np.zeros(len(dataset.catalog), dtype=np.bool_)
    for user in range(len(dataset.sequences)):
        is_trained[dataset.sequences.seen(user, "train")] = True
    is_trained[[review.item for review in dataset.reviews if review.split == "train"]] = True
    return is_trained


def _next_numbers(
    sequences: Sequences, numbers: NDArray[np.int64], split: Split, user_ids: Sequence[str]
) -> Share | None:
    """Of the users whose target is numbered and whose history has a number."""
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
