"""The protocol of a feature store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FeatureBatch:
    """Image embeddings of N items, in the order asked for.

    Rows of items that are not present are zero, as VIP5's own batches are padded.
    """

    features: NDArray[np.float32]  # [N, D]
    is_present: NDArray[np.bool_]  # [N]


class FeatureStore(Protocol):
    """Looks image embeddings up. `namespace` names the domain that the items belong to."""

    async def get_many(self, namespace: str, item_ids: Sequence[str]) -> FeatureBatch:
        """Fetch the embeddings of all items in one round trip; what is missing is marked, never raised."""
        ...

    def dim(self, namespace: str) -> int:
        """Width D of the namespace's embeddings."""
        ...
