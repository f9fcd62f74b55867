"""What catalogs of the same items have in common."""

from __future__ import annotations

import pyarrow as pa

from model.bundle.catalog import TRAINING_INTERACTIONS, Catalog


def without_counts(catalog: Catalog) -> pa.Table:
    """All columns but how often the training of a model saw the items."""
    return catalog.table.select([name for name in catalog.table.column_names if name != TRAINING_INTERACTIONS])
