"""Opens feature stores as the settings say, one for each version of a domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from weakref import WeakSet

import numpy as np

from feature_cache.background import Background
from feature_cache.embedded import EmbeddedStore, PlaceOf
from feature_cache.remote.reader import ReadLimits
from feature_cache.store import FeatureSpace, FeatureStore
from feature_cache.tiered import SpaceStore, TieredStore, open_tiered
from model.bundle.catalog import Catalog
from model.bundle.column_texts import MOST_HELD
from model.bundle.features import ItemFeatures, places_of
from model.bundle.layout import FEATURES
from model.planning.domain import ServedDomain
from service.observability.metrics import Metrics
from service.settings.options import FeatureOptions

UNNAMED_ENCODER = "unknown"


class Features:
    """Opens stores over the bundles' own embeddings, and over Redis if it is used."""

    def __init__(self, metrics: Metrics, tiered: TieredStore | None, *, has_fallback: bool) -> None:
        self._metrics = metrics
        self._tiered = tiered
        self._has_fallback = has_fallback
        self._num_readers: Counter[FeatureSpace] = Counter()
        self._embedded_stores: WeakSet[EmbeddedStore] = WeakSet()

    @property
    def is_embedded(self) -> bool:
        """Whether embeddings come from the bundles alone, so that single ones can be replaced in the service."""
        return self._tiered is None

    @property
    def is_redis_up(self) -> bool | None:
        """Whether Redis answers this process; None if none is used."""
        return None if self._tiered is None else self._tiered.is_up

    def problems(self) -> Sequence[str]:
        """What prevents fetching embeddings now."""
        changed = dict.fromkeys(problem for store in self._embedded_stores for problem in store.problems)
        return [*changed, *(() if self._tiered is None else self._tiered.problems)]

    async def store_of(self, domain: ServedDomain, found: ItemFeatures | None) -> FeatureStore:
        """A store for one version of a domain; `found` are its bundle's embeddings, if it has some."""
        embedded = self._embedded(domain, found)
        if self._tiered is None or not domain.spec.layout.feature_dim:
            return embedded
        space = _space(domain)
        self._num_readers[space] += 1
        if self._num_readers[space] == 1:
            try:
                await self._tiered.watch(space)
            except BaseException:
                self.drop(domain)
                raise
        return SpaceStore(self._tiered, space, embedded if self._has_fallback and found is not None else None)

    def drop(self, domain: ServedDomain) -> None:
        """Release a store of this domain."""
        space = _space(domain)
        if self._tiered is not None and domain.spec.layout.feature_dim:
            self._num_readers[space] -= 1
            if not self._num_readers[space]:
                self._tiered.forget(space)

    def _embedded(self, domain: ServedDomain, found: ItemFeatures | None) -> EmbeddedStore:
        source = found or ItemFeatures((), np.zeros((0, domain.spec.layout.feature_dim), dtype=np.float32))
        name = f"{FEATURES} of the domain {domain.name}"
        store = EmbeddedStore(source, self._metrics, name, _place_of(source, domain.catalog))
        self._embedded_stores.add(store)
        return store


def _place_of(source: ItemFeatures, catalog: Catalog) -> PlaceOf | None:
    """For a large catalog, by its rows; a dictionary of a small one is quicker."""
    if len(source.item_ids) <= MOST_HELD:
        return None
    places = places_of(source, catalog)

    def place_of(item_id: str) -> int:
        row = catalog.row_of(item_id)
        return -1 if row is None else int(places[row])

    return place_of


@asynccontextmanager
async def open_features(options: FeatureOptions, metrics: Metrics, background: Background) -> AsyncIterator[Features]:
    """Stores can be opened within the block."""
    if options.redis is None:
        yield Features(metrics, None, has_fallback=True)
        return
    limits = ReadLimits(options.timeout_s, options.max_concurrent, options.refresh_s)
    async with open_tiered(
        options.redis, limits, metrics, background, tier_bytes=options.tier_bytes, signing=options.signing
    ) as tiered:
        metrics.watch_redis(lambda: tiered.is_up)
        yield Features(metrics, tiered, has_fallback=options.has_last_resort)


def _space(domain: ServedDomain) -> FeatureSpace:
    encoder = domain.spec.encoder
    return FeatureSpace(domain.name, encoder.name if encoder else UNNAMED_ENCODER, domain.spec.layout.feature_dim)
