"""Small datasets about the toys of the small bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance, Review, Sequences
from tests.tiny import tiny_catalog


def toys_dataset(
    histories: Sequence[Sequence[int]] | None = None,
    *,
    num_items: int = 120,
    reviews: Sequence[Review] = (),
    negatives: Mapping[int, Sequence[int]] | None = None,
    first_user: int = 1,
) -> Dataset:
    """Users `u1`, `u2` …, and `item-1` … whose rows count from 0; nine random histories where none are given."""
    if histories is None:
        rng = np.random.default_rng(8)
        histories = [rng.choice(num_items, size=size, replace=False).tolist() for size in (3, 4, 5, 6, 7, 3, 9, 4, 5)]
    numbers = range(first_user, first_user + len(histories))
    return Dataset(
        provenance=Provenance(name="toys", source="made for tests"),
        catalog=tiny_catalog(num_items),
        users=Users.from_rows({"user_id": f"u{n}", "index": str(n), "name": f"Ann {n}"} for n in numbers),
        sequences=Sequences(_flat(histories), np.cumsum([0, *(len(history) for history in histories)])),
        reviews=tuple(reviews),
        negatives={user: np.asarray(items, dtype=np.int64) for user, items in (negatives or {}).items()},
    )


def toy_review(user: int, **changes: object) -> Review:
    fields: dict[str, object] = {
        "user": user,
        "item": user + 4,
        "split": "test",
        "star_rating": 4.0,
        "headline": "next toy",
        "feature": "toy",
        "explanation": "the toy for the next purchase",
    }
    return Review(**(fields | changes))  # type: ignore[arg-type]  # each test names fields of its own


def _flat(histories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([item for history in histories for item in history], dtype=np.int64)
