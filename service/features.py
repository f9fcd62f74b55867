"""Opens the feature store that the settings ask for, and lets its tiers be seen in the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from feature_cache.embedded import EmbeddedStore
from feature_cache.errors import FeatureFileError
from feature_cache.remote.reader import ReadLimits
from feature_cache.store import FeatureSpace, FeatureStore
from feature_cache.tiered import open_tiered
from model.engine.domain import ServedDomain
from model.engine.runtime import Runtime
from model.errors import BundleError
from service.metrics import Metrics
from service.settings import FeatureOptions

UNNAMED_ENCODER = "unknown"


@dataclass(frozen=True)
class OpenFeatures:
    """A store, and a way to ask what is wrong with it."""

    store: FeatureStore
    problems: Callable[[], Sequence[str]]


@asynccontextmanager
async def open_features(options: FeatureOptions, runtime: Runtime, metrics: Metrics) -> AsyncIterator[OpenFeatures]:
    """Raises BundleError where a bundle's embeddings are not as wide as its model reads."""
    embedded = _embedded(runtime, metrics)
    if options.redis is None:
        yield OpenFeatures(embedded, tuple)
        return
    spaces = {name: _space(domain) for name, domain in runtime.domains.items() if domain.spec.layout.feature_dim}
    limits = ReadLimits(options.timeout_s, options.max_concurrent, options.refresh_s)
    last_resort = embedded if options.has_last_resort and runtime.feature_files else None
    async with open_tiered(
        options.redis, spaces, limits, metrics, tier_bytes=options.tier_bytes, last_resort=last_resort
    ) as store:
        metrics.watch_redis(lambda: store.is_up)
        yield OpenFeatures(store, lambda: store.problems)


def _embedded(runtime: Runtime, metrics: Metrics) -> EmbeddedStore:
    dims = {name: domain.spec.layout.feature_dim for name, domain in runtime.domains.items()}
    try:
        return EmbeddedStore.open(runtime.feature_files, dims, metrics)
    except FeatureFileError as error:
        raise BundleError(str(error)) from error


def _space(domain: ServedDomain) -> FeatureSpace:
    encoder = domain.spec.encoder
    return FeatureSpace(domain.name, encoder.name if encoder else UNNAMED_ENCODER, domain.spec.layout.feature_dim)
