"""Reader for explanations that were extracted from reviews elsewhere; their texts are not changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

from model.bundle.joins import Rows
from model.datasets.dataset import SPLITS, Review, Sequences, Split
from model.datasets.faults import Faults
from model.datasets.field_names import FieldNames
from model.datasets.ids import id_text
from model.datasets.records import numbered_records, require_good
from model.datasets.text_lines import Source
from model.datasets.values import Fields
from model.progress import Progress

_USER, _ITEM = ("user", "user_id", "reviewerID"), ("item", "item_id", "asin")
REVIEW_FIELDS = (
    *_USER,
    *_ITEM,
    "split",
    "star_rating",
    "overall",
    "headline",
    "summary",
    "feature",
    "explanation",
    "reviewerName",
)
_IGNORED = ("reviewText", "reviewTime", "unixReviewTime", "helpful")
_SPLIT_IN_NAME = re.compile(r"(?:^|[._-])(train|val|test)(?=[._-])")


@dataclass(frozen=True)
class ReviewRows:
    """Maps reviews to rows of users and items, and derives a review's split where none is given."""

    row_of_user: Mapping[str, int]
    row_of_item: Mapping[str, int]
    sequences: Sequences

    @cached_property
    def users(self) -> Rows:
        return Rows(self.row_of_user)

    @cached_property
    def items(self) -> Rows:
        return Rows(self.row_of_item)

    def split_of(self, user: int, item: int) -> Split:
        """By leave-one-out: the split of the item's position in the user's sequence, `train` if it has none."""
        items = self.sequences.of(user)
        if len(items) > 0 and items[-1] == item:
            return "test"
        return "val" if len(items) > 1 and items[-2] == item else "train"

    def review_of(self, fields: Fields, split: Split | None) -> Review | str:
        """The review in a record, or the rule that the record breaks."""
        names = [_name(fields.record, *each) for each in (_USER, _ITEM)]
        if not all(names):
            return "the review has no user, or no item"
        user, item = self.users.find(names[0]), self.items.find(names[1])
        if user is None:
            return "the user of the review has no interactions"
        if item is None:
            return "the item of the review is unknown"
        return Review(
            user=user,
            item=item,
            split=split or self.split_of(user, item),
            star_rating=fields.number("star_rating", "overall"),
            headline=fields.text("headline", "summary"),
            feature=fields.text("feature"),
            explanation=fields.text("explanation"),
        )


def read_explanations(
    paths: Sequence[Path], rows: ReviewRows, faults: Faults, progress: Progress
) -> tuple[Review, ...]:
    """Read tables or JSON lines with user, item, explanation and optionally feature, star_rating, headline and split.

    The split is that of the record, else that in the file's name (`explanations.train.jsonl`), else by leave-one-out.
    """
    reviews: list[Review] = []
    for path in paths:
        source = Source(path, faults, progress)
        named = _SPLIT_IN_NAME.search(path.name)
        split = cast("Split", named[1]) if named else None
        names = FieldNames(REVIEW_FIELDS, _IGNORED, required=(_USER, _ITEM, ("explanation",)))
        num_good = 0
        for number, record in numbered_records(source, names):
            fields = Fields(record, faults, source.place(number))
            review = rows.review_of(fields, _split_of_record(fields) or split)
            if isinstance(review, str):
                source.fault(review, number)
            elif review.explanation is None:
                source.fault("the line has no explanation", number)
            else:
                reviews.append(review)
                num_good += 1
        require_good(source, num_good, "line with a known user, a known item and an explanation", names)
    return tuple(reviews)


def merged(reviews: Sequence[Review], explained: Sequence[Review]) -> tuple[Review, ...]:
    """`explained`, with missing ratings and headlines filled in from `reviews`, then the other `reviews`."""
    others = {(review.user, review.item): review for review in reviews}
    pairs = {(review.user, review.item) for review in explained}
    return (
        *(_with_gaps_filled(review, others.get((review.user, review.item))) for review in explained),
        *(review for review in reviews if (review.user, review.item) not in pairs),
    )


def _with_gaps_filled(review: Review, other: Review | None) -> Review:
    if other is None:
        return review
    stars = review.star_rating if review.star_rating is not None else other.star_rating
    return replace(review, star_rating=stars, headline=review.headline or other.headline)


def _split_of_record(fields: Fields) -> Split | None:
    split = fields.text("split")
    if split is not None and split not in SPLITS:
        fields.unread("split", f"one of {', '.join(SPLITS)}")
    return next((known for known in SPLITS if known == split), None)


def _name(record: Mapping[str, object], *fields: str) -> str:
    return next((found for name in fields if (found := id_text(record.get(name))) is not None), "")
