"""Opens feature stores as the settings say, one for each version of a domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from feature_cache.embedded import EmbeddedStore
from feature_cache.remote.reader import ReadLimits
from feature_cache.store import FeatureSpace, FeatureStore
from feature_cache.tiered import SpaceStore, TieredStore, open_tiered
from model.bundle.features import ItemFeatures, load_features
from model.planning.domain import ServedDomain
from service.observability.metrics import Metrics
from service.settings import FeatureOptions

UNNAMED_ENCODER = "unknown"


class Features:
    """Opens stores over the bundles' own embeddings, and over Redis if it is used."""

    def __init__(self, metrics: Metrics, tiered: TieredStore | None, *, has_fallback: bool) -> None:
        self._metrics = metrics
        self._tiered = tiered
        self._has_fallback = has_fallback
        self._num_readers: Counter[FeatureSpace] = Counter()

    @property
    def is_embedded(self) -> bool:
        """Whether embeddings come from the bundles alone, so that single ones can be replaced in the service."""
        return self._tiered is None

    def problems(self) -> Sequence[str]:
        """What prevents fetching embeddings now."""
        return () if self._tiered is None else self._tiered.problems

    async def store_of(self, domain: ServedDomain, path: Path | None) -> FeatureStore:
        """A store for one version of a domain; `path` is its bundle's file of embeddings, if it has one.

        Raises BundleError if the file breaks the format or is of another width than the model reads.
        """
        embedded = self._embedded(domain, path)
        if self._tiered is None or not domain.spec.layout.feature_dim:
            return embedded
        space = _space(domain)
        self._num_readers[space] += 1
        if self._num_readers[space] == 1:
            await self._tiered.watch(space)
        return SpaceStore(self._tiered, space, embedded if self._has_fallback and path is not None else None)

    def drop(self, domain: ServedDomain) -> None:
        """Release a store of this domain."""
        space = _space(domain)
        if self._tiered is not None and domain.spec.layout.feature_dim:
            self._num_readers[space] -= 1
            if not self._num_readers[space]:
                self._tiered.forget(space)

    def _embedded(self, domain: ServedDomain, path: Path | None) -> EmbeddedStore:
        dim = domain.spec.layout.feature_dim
        if path is None:
            return EmbeddedStore(ItemFeatures((), np.zeros((0, dim), dtype=np.float32)), self._metrics)
        return EmbeddedStore(load_features(path, f"{path.name} of {domain.name}", dim), self._metrics)


@asynccontextmanager
async def open_features(options: FeatureOptions, metrics: Metrics) -> AsyncIterator[Features]:
    """Stores can be opened within the block."""
    if options.redis is None:
        yield Features(metrics, None, has_fallback=True)
        return
    limits = ReadLimits(options.timeout_s, options.max_concurrent, options.refresh_s)
    async with open_tiered(options.redis, limits, metrics, tier_bytes=options.tier_bytes) as tiered:
        metrics.watch_redis(lambda: tiered.is_up)
        yield Features(metrics, tiered, has_fallback=options.has_last_resort)


def _space(domain: ServedDomain) -> FeatureSpace:
    encoder = domain.spec.encoder
    return FeatureSpace(domain.name, encoder.name if encoder else UNNAMED_ENCODER, domain.spec.layout.feature_dim)
