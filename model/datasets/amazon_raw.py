"""Reader for McAuley's raw files of Amazon reviews: one review, or one item, per line.

Lines are JSON, or in the metadata of 2014 Python literals. Users and items with too few reviews are removed until all
that remain have enough (k-core), each user's reviews are sorted by time, and users and items are numbered in the order
of their first appearance, as in VIP5's preprocessing.
"""

# L reviews

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.importers.features import read_features
from model.bundle.joins import Join
from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance, Review, Sequences, Split
from model.datasets.explanations import ReviewRows, merged, read_explanations
from model.datasets.faults import Faults
from model.datasets.item_facts import UNKNOWN_FACTS, catalog_of, number_of, one_line, read_metadata
from model.datasets.text_lines import Source, numbered_records
from model.errors import DatasetError
from model.progress import Progress, no_progress

_END_OF_TIME = 1 << 40  # seconds
_HELD_OUT: tuple[Split, ...] = ("val", "test")  # a user's last reviews


@dataclass(frozen=True)
class RawSource:
    """The published files; each may be gzipped. `core` is the smallest number of reviews of a user or item."""

    reviews: Path  # reviews_X_5.json.gz
    metadata: Path | None = None  # meta_X.json.gz
    explanations: tuple[Path, ...] = ()  # JSON lines: user, item, feature, explanation
    features: Path | None = None  # a folder of <asin>.npy, or safetensors beside its .ids.txt
    core: int = 5


class _RawReview(NamedTuple):
    user: int
    item: int
    time: int
    stars: float | None
    headline: str | None


@dataclass(frozen=True)
class _RawReviews:
    """Reviews in the file's order; users and items are numbered by first appearance."""

    reviews: list[_RawReview]
    user_ids: list[str]
    item_ids: list[str]
    names: dict[int, str]  # of users whose reviews are signed


def read_amazon_raw(files: RawSource, name: str, faults: Faults, progress: Progress = no_progress) -> Dataset:
    """Read a dataset from raw files; broken lines are skipped and counted in `faults`.

    A user's last review is in the split test, the one before it in val, and a review's summary is its headline.
    Explanations come only from `files.explanations`. Raises DatasetError for a file that cannot be read, and if the
    k-core is empty.
    """
    raw = _read_reviews(Source(files.reviews, faults, progress))
    progress(f"filtering the {files.core}-core", 0, None)
    kept = _chosen(raw, files.core)
    users = list(dict.fromkeys(sorted(raw.reviews[place].user for place in kept)))
    items = list(dict.fromkeys(raw.reviews[place].item for place in kept))
    user_rows = {user: row for row, user in enumerate(users)}
    item_rows = {item: row for row, item in enumerate(items)}
    sequences = _sequences([raw.reviews[place] for place in kept], user_rows, item_rows)
    item_ids = [raw.item_ids[item] for item in items]
    catalog = _catalog(files.metadata, item_ids, faults, progress)
    rows = ReviewRows(
        row_of_user={raw.user_ids[user]: row for user, row in user_rows.items()},
        row_of_item={item_id: row for row, item_id in enumerate(item_ids)},
        sequences=sequences,
    )
    explained = read_explanations(files.explanations, rows, faults, progress)
    features = None
    if files.features is not None:
        features = read_features(files.features, catalog, progress, faults.notice)
    return Dataset(
        provenance=Provenance(name, "amazon-raw", "sequential", dict(faults.counts)),
        catalog=catalog,
        users=_users(raw, users),
        sequences=sequences,
        reviews=merged(_reviews([raw.reviews[place] for place in kept], sequences), explained),
        features=features,
    )


def _catalog(metadata: Path | None, item_ids: Sequence[str], faults: Faults, progress: Progress) -> Catalog:
    facts = {} if metadata is None else read_metadata(Source(metadata, faults, progress), set(item_ids))
    if metadata is not None:
        without = [item_id for item_id in item_ids if item_id not in facts]
        faults.notice(str(Join(len(item_ids), f"a line in {metadata.name}", "line", without)))
    numbers = [str(number) for number in range(1, len(item_ids) + 1)]
    return catalog_of(item_ids, numbers, [facts.get(item_id, UNKNOWN_FACTS) for item_id in item_ids])


def _read_reviews(source: Source) -> _RawReviews:
    reviews: dict[tuple[int, int, int], _RawReview] = {}
    user_numbers: dict[str, int] = {}
    item_numbers: dict[str, int] = {}
    names: dict[int, str] = {}
    for number, record in numbered_records(source):
        user_id, item_id, time = record.get("reviewerID"), record.get("asin"), number_of(record.get("unixReviewTime"))
        if not (isinstance(user_id, str) and user_id and isinstance(item_id, str) and item_id):
            source.fault("the review has no reviewerID, or no asin", number)
            continue
        if time is None or not 0 <= time < _END_OF_TIME:
            source.fault("the review has no unixReviewTime in seconds", number)
            continue
        user = user_numbers.setdefault(user_id, len(user_numbers))
        item = item_numbers.setdefault(item_id, len(item_numbers))
        key = (user, item, int(time))
        if key in reviews:
            source.fault("the review repeats user, item and time of an earlier one", number)
            continue
        headline = _text(record, "summary")
        reviews[key] = _RawReview(*key, stars=number_of(record.get("overall")), headline=headline)
        name = _text(record, "reviewerName")
        if name is not None:
            names.setdefault(user, name)
    if not reviews:
        found = "; ".join(source.faults.descriptions()) or "the file is empty"
        raise DatasetError(f"{source.path} has no review with reviewerID, asin and unixReviewTime: {found}")
    return _RawReviews(list(reviews.values()), list(user_numbers), list(item_numbers), names)


def _chosen(raw: _RawReviews, core: int) -> list[int]:
    """Positions of the reviews in the k-core, sorted by user, then by time, then by position."""
    users = np.array([review.user for review in raw.reviews])
    items = np.array([review.item for review in raw.reviews])
    times = np.array([review.time for review in raw.reviews])
    kept = np.flatnonzero(k_core(users, items, core))
    if not len(kept):
        raise DatasetError(
            f"the {core}-core is empty: no reviews remain where each user and item has {core}; choose a smaller --core"
        )
    order: list[int] = kept[np.lexsort((times[kept], users[kept]))].tolist()
    return order


def k_core(users: NDArray[np.int64], items: NDArray[np.int64], core: int) -> NDArray[np.bool_]:
    """Which interactions remain, [L], after repeatedly removing users and items with fewer than `core` of them."""
    is_kept = np.ones(len(users), dtype=np.bool_)
    while True:
        has_enough = [np.bincount(rows[is_kept], minlength=rows.max(initial=0) + 1) >= core for rows in (users, items)]
        still_kept = is_kept & has_enough[0][users] & has_enough[1][items]
        if (still_kept == is_kept).all():
            return is_kept
        is_kept = still_kept


def _sequences(reviews: Sequence[_RawReview], user_rows: Mapping[int, int], item_rows: Mapping[int, int]) -> Sequences:
    users = [user_rows[review.user] for review in reviews]
    return Sequences(
        items=np.array([item_rows[review.item] for review in reviews], dtype=np.int64),
        offsets=np.searchsorted(users, np.arange(len(user_rows) + 1)).astype(np.int64),
        timestamps=np.array([review.time for review in reviews], dtype=np.int64),
    )


def _users(raw: _RawReviews, users: Sequence[int]) -> Users:
    return Users.from_rows(
        {"user_id": raw.user_ids[user], "index": str(number), "name": raw.names.get(user)}
        for number, user in enumerate(users, start=1)
    )


def _reviews(reviews: Sequence[_RawReview], sequences: Sequences) -> list[Review]:
    """One review per interaction, in the order of the sequences."""
    splits: list[Split] = ["train"] * len(reviews)
    users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    for start, end in pairwise(sequences.offsets.tolist()):
        splits[max(start, end - 2) : end] = _HELD_OUT[start - end :]
    rows = zip(users.tolist(), sequences.items.tolist(), splits, reviews, strict=True)
    return [
        Review(user, item, split, star_rating=review.stars, headline=review.headline, feature=None, explanation=None)
        for user, item, split, review in rows
    ]


def _text(record: Mapping[str, object], field: str) -> str | None:
    text = record.get(field)
    return one_line(html.unescape(text)) if isinstance(text, str) else None
