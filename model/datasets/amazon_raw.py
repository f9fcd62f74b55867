"""Reader for McAuley's raw files of Amazon reviews: one review, or one item, per line.

Lines are JSON, or in the metadata of 2014 Python literals. Users and items with too few reviews are removed until all
that remain have enough (k-core), each user's reviews are sorted by time, and users and items are numbered in the order
of their first appearance, as in VIP5's preprocessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.bundle.catalog import Catalog
from model.bundle.importers.features import read_features
from model.bundle.joins import Join
from model.datasets.dataset import Dataset, Provenance
from model.datasets.explanations import ReviewRows, merged, read_explanations
from model.datasets.faults import Faults
from model.datasets.interactions import InteractionForm, histories_of, read_interactions
from model.datasets.item_facts import UNKNOWN_FACTS, catalog_of, read_metadata
from model.datasets.text_lines import Source
from model.progress import Progress, no_progress

_FORM = InteractionForm(
    user="reviewerID",
    item="asin",
    time="unixReviewTime",
    rating="overall",
    headline="summary",
    name="reviewerName",
    no_ids="the review has no reviewerID, or no asin",
    no_time="the review has no unixReviewTime in seconds",
    of="review",
    of_many="reviews",
    ignored=("helpful", "reviewText", "reviewTime", "verified", "vote", "style", "image", "category"),
    only_text_ids=True,  # a number may have lost the leading zeros that many ASINs have
    shows_times=False,
)


@dataclass(frozen=True)
class RawSource:
    """The published files; each may be gzipped. `core` is the smallest number of reviews of a user or item."""

    reviews: Path  # reviews_X_5.json.gz
    metadata: Path | None = None  # meta_X.json.gz
    explanations: tuple[Path, ...] = ()  # JSON lines: user, item, feature, explanation
    features: Path | None = None  # a folder of <asin>.npy, or safetensors beside its .ids.txt
    core: int = 5


def read_amazon_raw(files: RawSource, name: str, faults: Faults, progress: Progress = no_progress) -> Dataset:
    """Read a dataset from raw files; broken lines are skipped and counted in `faults`.

    A user's last review is in the split test, the one before it in val, and a review's summary is its headline.
    Explanations come only from `files.explanations`. Raises DatasetError for a file that cannot be read, and if the
    k-core is empty.
    """
    found = read_interactions(Source(files.reviews, faults, progress), _FORM)
    progress(f"filtering the {files.core}-core", 0, None)
    kept = histories_of(found, files.core, _FORM.of_many)
    catalog = _catalog(files.metadata, kept.item_ids, faults, progress)
    rows = ReviewRows(
        row_of_user={user_id: row for row, user_id in enumerate(kept.user_ids)},
        row_of_item={item_id: row for row, item_id in enumerate(kept.item_ids)},
        sequences=kept.sequences,
    )
    explained = read_explanations(files.explanations, rows, faults, progress)
    features = None
    if files.features is not None:
        features = read_features(files.features, catalog, progress, faults.notice)
    return Dataset(
        provenance=Provenance(name, "amazon-raw", "sequential", dict(faults.counts)),
        catalog=catalog,
        users=kept.users,
        sequences=kept.sequences,
        reviews=merged(kept.reviews, explained),
        features=features,
    )


def _catalog(metadata: Path | None, item_ids: Sequence[str], faults: Faults, progress: Progress) -> Catalog:
    facts = {} if metadata is None else read_metadata(Source(metadata, faults, progress), set(item_ids))
    if metadata is not None:
        without = [item_id for item_id in item_ids if item_id not in facts]
        faults.notice(str(Join(len(item_ids), f"a line in {metadata.name}", "line", without)))
    numbers = [str(number) for number in range(1, len(item_ids) + 1)]
    return catalog_of(item_ids, numbers, [facts.get(item_id, UNKNOWN_FACTS) for item_id in item_ids])
