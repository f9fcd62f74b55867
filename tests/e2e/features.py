"""What tests of embeddings in Redis share: spaces, sources, stores, and loading."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from feature_cache.background import Background
from feature_cache.codec import DType
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import Link, linked
from feature_cache.remote.loading import Loaded, LoadOptions, load
from feature_cache.remote.reader import ReadLimits
from feature_cache.signing import Signing
from feature_cache.store import FeatureObserver, FeatureSource, FeatureSpace, NoObserver
from feature_cache.tiered import TieredStore, open_tiered

DIM = 8
TOYS = FeatureSpace("toys", "vitb32", DIM)
PATIENCE_S = 60.0
UNHURRIED = ReadLimits(budget_s=5.0, max_concurrent=16, refresh_s=3600.0)
"""Tests of what is stored are not about time: they poll when they want to."""


class ArraySource:
    """Embeddings in memory."""

    def __init__(self, item_ids: Sequence[str], features: NDArray[np.floating]) -> None:
        self._item_ids = item_ids
        self.features = features

    @classmethod
    def random(cls, num_items: int, seed: int = 0, dim: int = DIM) -> ArraySource:
        features = np.random.default_rng(seed).standard_normal((num_items, dim)).astype(np.float16)
        return cls([f"item-{number}" for number in range(1, num_items + 1)], features)

    @property
    def item_ids(self) -> Sequence[str]:
        return self._item_ids

    @property
    def dim(self) -> int:
        return int(self.features.shape[1])

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.floating]:
        return self.features[places]


def silent(what: str, done: int, total: int | None) -> None:
    """A report that nobody reads."""


def link_to(url: str) -> AbstractAsyncContextManager[Link]:
    return linked(RedisAddress.parse(url), PATIENCE_S)


async def load_into(
    url: str,
    source: FeatureSource,
    space: FeatureSpace = TOYS,
    dtype: DType = "float16",
    signing: Signing | None = None,
) -> Loaded:
    async with link_to(url) as link:
        return await load(link, space, source, LoadOptions(dtype, grace_s=0.0, signing=signing), silent)


@asynccontextmanager
async def store_of(
    url: str,
    *,
    tier_bytes: int = 0,
    limits: ReadLimits = UNHURRIED,
    observer: FeatureObserver | None = None,
    signing: Signing | None = None,
) -> AsyncIterator[TieredStore]:
    address = RedisAddress.parse(url)
    async with open_tiered(
        address, limits, observer or NoObserver(), Background(), tier_bytes=tier_bytes, signing=signing
    ) as store:
        await store.watch(TOYS)
        yield store


async def hear(store: TieredStore) -> None:
    """Let the store learn what has changed, as its watcher does now and then."""
    await store._reader.watcher.poll()
