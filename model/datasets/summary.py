"""Statistics of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.datasets.dataset import NUM_HELD_OUT, SPLITS, Dataset, Review, Split

_SHORTEST = NUM_HELD_OUT["train"] + 1
"""With fewer interactions, nothing of a user is left to train on."""


@dataclass(frozen=True)
class Lengths:
    """Numbers of interactions per user. `num_too_short` users have nothing to train on."""

    shortest: int
    median: float
    mean: float
    longest: int
    num_too_short: int


@dataclass(frozen=True)
class ReviewCounts:
    """Numbers of reviews in one split, by the fields that they have."""

    num_reviews: int
    num_with_explanation: int
    num_with_feature: int
    num_with_star_rating: int
    num_with_headline: int

    @classmethod
    def of(cls, reviews: list[Review]) -> ReviewCounts:
        fields = ("explanation", "feature", "star_rating", "headline")
        return cls(len(reviews), *(sum(getattr(review, name) is not None for review in reviews) for name in fields))


@dataclass(frozen=True)
class DatasetSummary:
    """`density` is the share of user–item pairs that occur; `faults` are counts by rule."""

    name: str
    source: str
    indexing: str
    num_users: int
    num_named_users: int
    num_items: int
    num_titles: int
    num_images: int
    num_features: int
    feature_dim: int | None
    columns: tuple[str, ...]
    examples_of_index: tuple[str, ...]
    num_interactions: int
    density: float
    has_timestamps: bool
    lengths: Lengths
    reviews: dict[Split, ReviewCounts]
    num_users_with_negatives: int
    faults: dict[str, int]


def summarise(dataset: Dataset) -> DatasetSummary:
    catalog, users, sequences, features = dataset.catalog, dataset.users, dataset.sequences, dataset.features
    lengths = np.diff(sequences.offsets)
    num_pairs = sum(len(np.unique(sequences.of(user))) for user in range(len(sequences)))
    by_split: dict[Split, list[Review]] = {split: [] for split in SPLITS}
    for review in dataset.reviews:
        by_split[review.split].append(review)
    return DatasetSummary(
        name=dataset.provenance.name,
        source=dataset.provenance.source,
        indexing=dataset.provenance.indexing,
        num_users=len(users),
        num_named_users=len(users) - users.table.column("name").null_count,
        num_items=len(catalog),
        num_titles=sum(title is not None for title in catalog.titles),
        num_images=sum(image is not None for image in catalog.images),
        num_features=0 if features is None else len(features.item_ids),
        feature_dim=None if features is None else features.dim,
        columns=catalog.attribute_columns,
        examples_of_index=tuple(catalog.indices[:3]),
        num_interactions=len(sequences.items),
        density=num_pairs / max(len(users) * len(catalog), 1),
        has_timestamps=sequences.timestamps is not None,
        lengths=Lengths(
            shortest=int(lengths.min(initial=lengths.max(initial=0))),
            median=float(np.median(lengths)) if len(lengths) else 0.0,
            mean=float(lengths.mean()) if len(lengths) else 0.0,
            longest=int(lengths.max(initial=0)),
            num_too_short=int((lengths < _SHORTEST).sum()),
        ),
        reviews={split: ReviewCounts.of(found) for split, found in by_split.items()},
        num_users_with_negatives=len(dataset.negatives),
        faults=dict(dataset.provenance.faults),
    )
