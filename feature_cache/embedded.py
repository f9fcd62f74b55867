"""Feature store over the embeddings in a bundle."""

# N requested items, D width

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from feature_cache.store import EMBEDDED_TIER, FeatureBatch, FeatureObserver, FeatureSource


class EmbeddedStore:
    """Reads one source of embeddings, such as a memory-mapped file."""

    def __init__(self, source: FeatureSource, observer: FeatureObserver) -> None:
        self._source = source
        self._place_of = {item_id: place for place, item_id in enumerate(source.item_ids)}
        self._observer = observer

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        started_at = time.perf_counter()
        batch = self._read(item_ids)
        num_present = int(batch.is_present.sum())
        duration_s = time.perf_counter() - started_at
        self._observer.observe_features(EMBEDDED_TIER, num_present, len(item_ids) - num_present, duration_s)
        return batch

    def _read(self, item_ids: Sequence[str]) -> FeatureBatch:
        places = np.array([self._place_of.get(item_id, -1) for item_id in item_ids], dtype=np.int64)  # [N]
        is_present = places >= 0
        features = np.zeros((len(item_ids), self._source.dim), dtype=np.float32)
        features[is_present] = self._source.rows(places[is_present])
        return FeatureBatch(features, is_present)
