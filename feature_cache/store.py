"""The protocol of a feature store, and whom stores tell how they are doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PROCESS_TIER = "process"
REDIS_TIER = "redis"
EMBEDDED_TIER = "embedded"


@dataclass(frozen=True)
class FeatureSpace:
    """Embeddings that may be compared: those of one domain's items, made by one image encoder, `dim` wide."""

    domain: str
    encoder: str
    dim: int


@dataclass(frozen=True)
class FeatureBatch:
    """Image embeddings of N items, in the order asked for.

    Rows of items that are not present are zero, as VIP5's own batches are padded. `shortfall` says why items that the
    store may well hold are missing, such as a store that did not answer; it is empty where they were never there.
    """

    features: NDArray[np.float32]  # [N, D]
    is_present: NDArray[np.bool_]  # [N]
    shortfall: str = ""


class FeatureSource(Protocol):
    """Embeddings [N, D] of a known set of items, such as a file's; each item is there once."""

    @property
    def item_ids(self) -> Sequence[str]: ...

    @property
    def dim(self) -> int: ...

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        """Embeddings [len(places), D] of the items at these places of `item_ids`."""
        ...


class FeatureStore(Protocol):
    """Looks up the image embeddings of one domain's items."""

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        """Fetch the embeddings of all items in one round trip; missing ones are marked, and nothing is raised."""
        ...


class FeatureObserver(Protocol):
    """Is told what the tiers of a store find."""

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None: ...

    def count_rejected_features(self, num_values: int) -> None:
        """Values that were found but are no embeddings of the item, encoder, type and width asked for."""
        ...


class NoObserver:
    """Tells nobody."""

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None:
        pass

    def count_rejected_features(self, num_values: int) -> None:
        pass
