"""Protocols of the feature cache: sources and stores of embeddings, and observers of stores."""

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
    """A set of comparable embeddings: of one domain's items, by one image encoder, `dim` wide."""

    domain: str
    encoder: str
    dim: int


@dataclass(frozen=True)
class FeatureBatch:
    """Image embeddings of N items, in the requested order.

    They are of the type in which they are stored; conversion to float32 is exact, and done once for a batch of prompts.
    Rows of missing items are zero, as in VIP5's padded batches. `shortfall` gives the reason if items that have an
    embedding may be missing, for example because Redis did not answer; otherwise it is empty.
    """

    features: NDArray[np.floating]  # [N, D]
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


class ReadRows(Protocol):
    """Embeddings of n items; a row that is no longer as it was verified is zero and not intact."""

    @property
    def values(self) -> NDArray[np.floating]: ...  # [n, D]

    @property
    def is_intact(self) -> NDArray[np.bool_]: ...  # [n]


class CheckedSource(FeatureSource, Protocol):
    """A source that tells which rows were changed since it was opened, instead of failing."""

    def read(self, places: NDArray[np.int64]) -> ReadRows:
        """Embeddings [len(places), D] of the items at these places of `item_ids`."""
        ...


class FeatureStore(Protocol):
    """Looks up the image embeddings of one domain's items."""

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        """Fetch the embeddings of all items in one round trip; missing ones are marked, and nothing is raised."""
        ...


class FeatureObserver(Protocol):
    """Receives what each tier of a store finds."""

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None: ...

    def count_rejected_features(self, num_values: int) -> None:
        """Count values that are not embeddings of the requested item, encoder, type and width."""
        ...


class NoObserver:
    """Ignores what it receives."""

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None:
        pass

    def count_rejected_features(self, num_values: int) -> None:
        pass
