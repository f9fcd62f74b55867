"""The embedded store reads the rows asked for and marks what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from feature_cache.embedded import EmbeddedStore
from feature_cache.store import NoObserver
from model.bundle.features import ItemFeatures


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
async def test_rows_come_in_the_order_asked_for_and_missing_ones_are_zero_and_marked(dtype: type[np.floating]) -> None:
    source = ItemFeatures(("a", "bé", "", "d"), np.arange(12, dtype=dtype).reshape(4, 3))

    batch = await EmbeddedStore(source, NoObserver()).get_many(["d", "x", "bé", "d"])

    assert batch.features.dtype == dtype
    np.testing.assert_array_equal(batch.features, [[9, 10, 11], [0, 0, 0], [3, 4, 5], [9, 10, 11]])
    assert batch.is_present.tolist() == [True, False, True, True]


async def test_a_source_of_no_items_has_nothing() -> None:
    store = EmbeddedStore(ItemFeatures((), np.zeros((0, 5), dtype=np.float32)), NoObserver())

    batch = await store.get_many(["a", "b"])

    assert batch.features.shape == (2, 5)
    assert not batch.is_present.any()


async def test_no_items_give_an_empty_batch() -> None:
    store = EmbeddedStore(ItemFeatures(("a",), np.ones((1, 3), dtype=np.float32)), NoObserver())

    assert (await store.get_many([])).features.shape == (0, 3)


async def test_places_may_be_found_without_a_dictionary() -> None:
    source = ItemFeatures(("a", "b"), np.arange(4, dtype=np.float32).reshape(2, 2))

    batch = await EmbeddedStore(source, NoObserver(), place_of={"b": 1}.__getitem__).get_many(["b"])

    np.testing.assert_array_equal(batch.features, [[2, 3]])
