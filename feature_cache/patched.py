"""Feature store with some embeddings replaced in memory."""

# N items, D width of an embedding

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from feature_cache.store import FeatureBatch, FeatureStore


class PatchedStore:
    """Gives rows that were put precedence over those of another store."""

    def __init__(self, store: FeatureStore, rows: Mapping[str, NDArray[np.float32]]) -> None:
        """`rows` are embeddings [D] by item."""
        self._store = store
        self._rows = rows

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        batch = await self._store.get_many(item_ids)
        places = [place for place, item_id in enumerate(item_ids) if item_id in self._rows]
        if not places:
            return batch
        features, is_present = batch.features.astype(np.float32), batch.is_present.copy()
        features[places] = [self._rows[item_ids[place]] for place in places]
        is_present[places] = True
        return FeatureBatch(features, is_present, "" if is_present.all() else batch.shortfall)
