"""Makes the change of a served catalog that adds the items of a table, with the embeddings of their pictures.

The rows have no identifiers: in domains with a codebook, the service makes them from the embeddings.
"""

# n items

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from model.bundle.catalog import Catalog
from model.bundle.columns import AttributeValue
from model.bundle.importers.features import read_features
from model.datasets.item_facts import catalog_of
from model.datasets.named_items import read_described_items
from model.datasets.text_lines import Source
from model.errors import DatasetError

Cell = AttributeValue | list[float]


def read_additions(items: Source, features: Path) -> list[Mapping[str, Cell]]:
    """Rows of `PATCH /admin/domains/{name}/catalog` `add`: an item's known facts, and `feature`, its embedding.

    Broken lines are skipped and counted in the source's faults. Raises DatasetError if no line is good or an item has
    no embedding, and BundleError for embeddings that cannot be read or are of none of the items.
    """
    described = read_described_items(items)
    numbers = [str(number) for number in range(1, len(described) + 1)]  # a catalog needs some; nobody sees these
    catalog = catalog_of(list(described), numbers, list(described.values()))
    found = read_features(features, catalog, items.progress, items.faults.notice)
    missing = sorted(set(catalog.item_ids) - set(found.item_ids))
    if missing:
        raise DatasetError(
            f"{items.path}: item {missing[0]!r} has no embedding in {features}, from which its identifier would be made"
            f" ({len(missing):,} of {len(catalog):,} items have none); encode its picture with vip5 features encode, or"
            " remove its line"
        )
    embeddings = dict(zip(found.item_ids, found.features.astype(np.float64).tolist(), strict=True))
    return [{**_facts(catalog, row), "feature": embeddings[item_id]} for row, item_id in enumerate(catalog.item_ids)]


def _facts(catalog: Catalog, row: int) -> dict[str, Cell]:
    """Without those that are unknown, so that they are null in the served catalog."""
    facts: dict[str, Cell] = {"item_id": catalog.item_ids[row]}
    named = {"title": catalog.titles[row], "image": catalog.images[row], **catalog.attributes(row)}
    return facts | {name: value for name, value in named.items() if value is not None}
