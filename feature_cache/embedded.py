"""Feature store over the embeddings in a bundle."""

# N requested items, D width

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from feature_cache.store import EMBEDDED_TIER, CheckedSource, FeatureBatch, FeatureObserver

logger = logging.getLogger(__name__)


PlaceOf = Callable[[str], int]
"""The place of an item's embedding; -1 if there is none."""


class EmbeddedStore:
    """Reads one source of embeddings, such as a bundle's file. Rows that were changed on disk count as missing."""

    def __init__(
        self,
        source: CheckedSource,
        observer: FeatureObserver,
        name: str = "the embeddings",
        place_of: PlaceOf | None = None,
    ) -> None:
        """`place_of` finds an item's place in `source`, without a dictionary of all that are there."""
        self._source = source
        item_ids = source.item_ids if place_of is None else ()
        self._place_of = {item_id: place for place, item_id in enumerate(item_ids)}
        self._find = place_of or self._known_place
        self._observer = observer
        self._name = name
        self._changed: set[int] = set()

    @property
    def problems(self) -> list[str]:
        """Rows that were changed when they were last read."""
        text = (
            f"{self._name} was changed on disk while it is in use: {len(self._changed)} embeddings that were read "
            "count as missing; put the original file back, or load a bundle with a new one"
        )
        return [text] if self._changed else []

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        started_at = time.perf_counter()
        batch = self._read(item_ids)
        num_present = int(np.count_nonzero(batch.is_present))
        duration_s = time.perf_counter() - started_at
        self._observer.observe_features(EMBEDDED_TIER, num_present, len(item_ids) - num_present, duration_s)
        return batch

    def _read(self, item_ids: Sequence[str]) -> FeatureBatch:
        found_places = [self._find(item_id) for item_id in item_ids]
        places = np.array(found_places, dtype=np.int64)  # [N]
        if item_ids and not self._changed and -1 not in found_places:
            rows = self._source.read(places)
            if np.count_nonzero(rows.is_intact) == len(places):
                return FeatureBatch(rows.values, rows.is_intact)
        is_present = places >= 0
        found = self._source.read(places[is_present])
        features = np.zeros((len(item_ids), self._source.dim), dtype=found.values.dtype)
        features[is_present] = found.values
        if self._changed:
            self._changed -= set(places[is_present][found.is_intact].tolist())
        if found.is_intact.all():
            return FeatureBatch(features, is_present)
        self._note_changed(places[is_present][~found.is_intact])
        is_present[is_present] = found.is_intact
        return FeatureBatch(features, is_present, f"{self._name} was changed on disk while it is in use")

    def _known_place(self, item_id: str) -> int:
        return self._place_of.get(item_id, -1)

    def _note_changed(self, places: NDArray[np.int64]) -> None:
        if not self._changed:
            logger.error("features_changed_on_disk", extra={"source": self._name})
        self._changed.update(places.tolist())
        self._observer.count_rejected_features(len(places))
