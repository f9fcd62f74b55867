"""Feature stores of versions: each is counted once, and released whatever becomes of its version."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from feature_cache.background import Background
from feature_cache.embedded import EmbeddedStore
from feature_cache.store import FeatureSpace
from feature_cache.tiered import TieredStore
from model.planning.runtime import Runtime, load_runtime
from service.observability.metrics import Metrics
from service.versions import version_loader
from service.versions.bundle_source import BundleSource
from service.versions.features import Features
from service.versions.slots import Slots
from service.versions.state import OWN_BUNDLE, DomainState
from service.versions.version_loader import Sources, VersionLoader
from tests.tiny import tiny_bundle


class FakeTiers:
    """Notes which spaces are watched; `failure` is raised by the next call of `watch`."""

    def __init__(self) -> None:
        self.watched: set[FeatureSpace] = set()
        self.failure: BaseException | None = None

    async def watch(self, space: FeatureSpace) -> None:
        self.watched.add(space)
        if self.failure is not None:
            raise self.failure

    def forget(self, space: FeatureSpace) -> None:
        self.watched.discard(space)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return load_runtime(tiny_bundle(tmp_path_factory.mktemp("features")), num_threads=1)


def features_of(tiers: FakeTiers) -> Features:
    return Features(Metrics(), cast("TieredStore", tiers), has_fallback=True)


async def test_a_version_that_fails_after_its_store_was_opened_leaves_no_reader(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers = FakeTiers()
    slots = Slots(runtime.engine, {0}, lambda: asyncio.sleep(0), Background())
    loader = VersionLoader(Sources(runtime, BundleSource(None)), slots, features_of(tiers), lambda _: asyncio.sleep(0))
    ref, opened = loader.sources.open(OWN_BUNDLE, "toys")

    def fail(*_: object) -> None:
        assert tiers.watched
        raise MemoryError("no room for the eligible leaves")

    monkeypatch.setattr(version_loader, "version_at", fail)
    with pytest.raises(MemoryError):
        await loader.load(ref, opened, "toys", DomainState())

    assert not tiers.watched
    assert slots.num_allocated == 1


async def test_a_store_whose_opening_is_cancelled_leaves_no_reader(runtime: Runtime) -> None:
    tiers = FakeTiers()
    tiers.failure = asyncio.CancelledError()
    features = features_of(tiers)

    with pytest.raises(asyncio.CancelledError):
        await features.store_of(runtime.domains["toys"], None)

    assert not tiers.watched


async def test_a_large_catalogs_embeddings_are_found_by_its_rows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain, files = runtime.domains["toys"], runtime.files["toys"]
    item_ids = [*domain.catalog.item_ids[:20], "unknown"]
    features = Features(Metrics(), None, has_fallback=True)
    small = await (await features.store_of(domain, files.features)).get_many(item_ids)
    monkeypatch.setattr("service.versions.features.MOST_HELD", 0)
    store = await features.store_of(domain, files.features)
    assert isinstance(store, EmbeddedStore)
    assert not store._place_of
    large = await store.get_many(item_ids)
    assert large.is_present.tolist() == small.is_present.tolist()
    assert large.features.tolist() == small.features.tolist()
    assert 0 < large.is_present.sum() < len(item_ids) - 1
