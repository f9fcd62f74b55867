"""Feature store of a service with Redis: this process's memory, then Redis, then the bundle's own embeddings."""

# N requested items, D width

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from feature_cache.background import Background
from feature_cache.memory import ProcessTier
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import connect
from feature_cache.remote.reader import ReadLimits, RemoteReader
from feature_cache.remote.watcher import Known
from feature_cache.signing import Signing
from feature_cache.store import PROCESS_TIER, FeatureBatch, FeatureObserver, FeatureSpace, FeatureStore

WATCHER = "redis_watcher"


@dataclass(frozen=True)
class _Rows:
    """Raw floats of N items, None for missing ones."""

    rows: list[bytes | None]
    shortfall: str = ""


class TieredStore:
    """Looks embeddings up in this process, then in Redis, for every space that is watched.

    Answers lag behind Redis until the watcher notices a change. While Redis is down, rows that are kept here are still
    used.
    """

    def __init__(self, reader: RemoteReader, tier: ProcessTier | None, observer: FeatureObserver) -> None:
        self._reader = reader
        self._tier = tier
        self._observer = observer
        if tier is not None:
            reader.watcher.on_change(tier.drop)

    async def watch(self, space: FeatureSpace) -> None:
        """Follow one more space, so that it can be read."""
        await self._reader.watcher.watch(space)

    def forget(self, space: FeatureSpace) -> None:
        self._reader.watcher.forget(space)

    @property
    def is_up(self) -> bool:
        """Whether Redis answers."""
        return self._reader.watcher.is_up

    @property
    def problems(self) -> list[str]:
        return self._reader.problems

    async def get_many(self, space: FeatureSpace, item_ids: Sequence[str]) -> FeatureBatch:
        known = self._reader.watcher.known(space)
        found = await self._rows(space, known, item_ids)
        return _batch(known, found, len(item_ids), space.dim)

    async def _rows(self, space: FeatureSpace, known: Known, item_ids: Sequence[str]) -> _Rows:
        if self._tier is None or known.edition is None:
            fetched = await self._reader.fetch(known, item_ids)
            return _Rows(fetched.rows, fetched.shortfall)
        started_at = time.perf_counter()
        self._tier.fit(known.edition.codec.row_bytes)
        entries = self._tier.get_many(known.token, item_ids)
        rows = [None if entry is None else entry.row for entry in entries]
        missing = [place for place, entry in enumerate(entries) if entry is None]
        self._observer.observe_features(
            PROCESS_TIER, len(item_ids) - len(missing), len(missing), time.perf_counter() - started_at
        )
        if not missing:
            return _Rows(rows)
        fetched = await self._reader.fetch(known, [item_ids[place] for place in missing])
        # A row that was read before a put must not be kept after it: the watcher has already announced the change.
        now = self._reader.watcher.known(space)
        may_keep = (now.token, now.changes) == (known.token, known.changes)
        for place, row, is_absent in zip(missing, fetched.rows, fetched.is_absent, strict=True):
            rows[place] = row
            if may_keep and (row is not None or is_absent):
                self._tier.put(known.token, item_ids[place], row)
        return _Rows(rows, fetched.shortfall)


class SpaceStore:
    """The embeddings of one space; `fallback`, if there is one, supplies what the tiers do not have."""

    def __init__(self, tiered: TieredStore, space: FeatureSpace, fallback: FeatureStore | None) -> None:
        self._tiered = tiered
        self._space = space
        self._fallback = fallback

    async def get_many(self, item_ids: Sequence[str]) -> FeatureBatch:
        batch = await self._tiered.get_many(self._space, item_ids)
        if self._fallback is None or batch.is_present.all():
            return batch
        return await _completed(batch, self._fallback, item_ids)


def _batch(known: Known, found: _Rows, num_items: int, dim: int) -> FeatureBatch:
    present = [row for row in found.rows if row is not None]
    if known.edition is not None and len(present) == num_items:
        return FeatureBatch(known.edition.codec.decode(present), np.ones(num_items, dtype=np.bool_))
    features = np.zeros((num_items, dim), dtype=np.float32)
    is_present = np.array([row is not None for row in found.rows], dtype=np.bool_)
    if known.edition is not None and present:
        features[is_present] = known.edition.codec.decode(present)
    return FeatureBatch(features, is_present, found.shortfall)


async def _completed(batch: FeatureBatch, fallback: FeatureStore, item_ids: Sequence[str]) -> FeatureBatch:
    """The batch with its missing rows taken from the fallback, as far as that has them."""
    places = np.flatnonzero(~batch.is_present)
    more = await fallback.get_many([item_ids[place] for place in places.tolist()])
    features, is_present = batch.features.copy(), batch.is_present.copy()
    features[places], is_present[places] = more.features, more.is_present
    shortfall = "; ".join(filter(None, (batch.shortfall, more.shortfall)))
    return FeatureBatch(features, is_present, "" if is_present.all() else shortfall)


@asynccontextmanager
async def open_tiered(
    address: RedisAddress,
    limits: ReadLimits,
    observer: FeatureObserver,
    background: Background,
    *,
    tier_bytes: int,
    signing: Signing | None = None,
) -> AsyncIterator[TieredStore]:
    """A store with a running watcher, which has polled once, whether or not Redis answered."""
    link = connect(address)
    reader = RemoteReader(link, limits, observer, signing)
    store = TieredStore(reader, ProcessTier(tier_bytes) if tier_bytes else None, observer)
    try:
        await reader.watcher.poll()
        async with background.kept(WATCHER, reader.watcher.run):
            yield store
    finally:
        await link.close()
