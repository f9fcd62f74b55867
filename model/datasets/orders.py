"""Reader for tables of orders, one line per user, item and time, as shops export them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.bundle.importers.features import read_features
from model.datasets.dataset import Dataset, Provenance
from model.datasets.explanations import ReviewRows, merged, read_explanations
from model.datasets.faults import Faults
from model.datasets.interactions import InteractionForm, histories_of, read_interactions
from model.datasets.item_facts import catalog_of
from model.datasets.named_items import UNNAMED, read_named_items
from model.datasets.text_lines import Source
from model.progress import Progress, no_progress

_FORM = InteractionForm(
    user="user_id",
    item="item_id",
    time="timestamp",
    rating="rating",
    no_ids="the line has no user_id, or no item_id",
    no_time="timestamp is not a time",
    of="line",
    of_many="orders",
)


@dataclass(frozen=True)
class OrdersSource:
    """Files of a shop: CSV, Parquet or JSON lines. `core` is the smallest number of orders of a user or item."""

    orders: Path  # user_id, item_id, timestamp and optionally rating
    items: Path | None = None  # item_id, title, category, …
    explanations: tuple[Path, ...] = ()  # user, item, feature, explanation
    features: Path | None = None  # a folder of <item_id>.npy, or safetensors beside its .ids.txt
    core: int = 1


def read_orders(files: OrdersSource, name: str, faults: Faults, progress: Progress = no_progress) -> Dataset:
    """Read a dataset from orders; broken lines are skipped and counted in `faults`.

    Items that were never ordered stay in the catalog, after the others. Raises DatasetError for a file that cannot be
    read or has no good line, and if the k-core is empty.
    """
    found = read_interactions(Source(files.orders, faults, progress), _FORM)
    kept = histories_of(found, files.core, _FORM.of_many)
    names = list(kept.item_ids)
    known = {}
    if files.items is not None:
        known = read_named_items(Source(files.items, faults, progress), names, "no order", found.numbers)
        names += [item for item in known if item not in set(kept.item_ids)]
    items = [known.get(item, UNNAMED) for item in names]
    item_ids = [item.item_id or name for name, item in zip(names, items, strict=True)]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    catalog = catalog_of(item_ids, numbers, [item.facts for item in items])
    user_rows = {user_id: row for row, user_id in enumerate(kept.user_ids)}
    item_rows = {item_id: row for row, item_id in enumerate(item_ids)} | {item: row for row, item in enumerate(names)}
    explained = read_explanations(
        files.explanations, ReviewRows(user_rows, item_rows, kept.sequences), faults, progress
    )
    rated = [review for review in kept.reviews if review.star_rating is not None]
    features = None
    if files.features is not None:
        features = read_features(files.features, catalog, progress, faults.notice)
    return Dataset(
        provenance=Provenance(name, "orders", "sequential", dict(faults.counts)),
        catalog=catalog,
        users=kept.users,
        sequences=kept.sequences,
        reviews=merged(rated, explained),
        features=features,
    )
