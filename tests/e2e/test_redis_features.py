"""Embeddings in a real Redis: what is loaded is what is read, whole versions at a time, and nothing else ever is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_cache.codec import DType
from feature_cache.remote.changes import put
from feature_cache.remote.versions import current_edition
from tests.e2e.features import DIM, TOYS, ArraySource, hear, link_to, load_into, store_of
from tests.redis_servers import RedisServer

SOURCE = ArraySource.random(200)


class Counting:
    """An observer that adds up."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}
        self.num_rejected = 0

    def observe_features(self, tier: str, num_present: int, num_missing: int, duration_s: float) -> None:
        present, missing = self.found.get(tier, [0, 0])
        self.found[tier] = [present + num_present, missing + num_missing]
        assert duration_s >= 0

    def count_rejected_features(self, num_values: int) -> None:
        self.num_rejected += num_values


async def test_rows_come_in_the_order_asked_for_and_missing_ones_are_zero_and_marked(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    async with store_of(server.url) as store:
        batch = await store.get_many(TOYS, ["item-9", "nobody", "item-3", "item-9"])

    assert batch.features.dtype == np.float32
    np.testing.assert_array_equal(batch.features[[0, 2, 3]], SOURCE.features[[8, 2, 8]].astype(np.float32))
    assert not batch.features[1].any()
    assert batch.is_present.tolist() == [True, False, True, True]
    assert batch.shortfall == ""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
async def test_every_item_comes_back_exactly(server: RedisServer, dtype: DType) -> None:
    features: NDArray[np.floating] = np.random.default_rng(1).standard_normal((200, DIM)).astype(np.dtype(dtype))
    source = ArraySource(SOURCE.item_ids, features)
    await load_into(server.url, source, dtype=dtype)

    for tier_bytes in (0, 1_000_000):
        async with store_of(server.url, tier_bytes=tier_bytes) as store:
            for _ in range(2):
                batch = await store.get_many(TOYS, source.item_ids)
                assert batch.is_present.all()
                np.testing.assert_array_equal(batch.features, features.astype(np.float32))


async def test_no_items_give_an_empty_batch(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    async with store_of(server.url, tier_bytes=1000) as store:
        assert (await store.get_many(TOYS, [])).features.shape == (0, DIM)


async def test_the_process_answers_what_it_was_asked_before(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    counts = Counting()
    async with store_of(server.url, tier_bytes=1_000_000, observer=counts) as store:
        await store.get_many(TOYS, ["item-1", "item-2", "nobody"])
        await store.get_many(TOYS, ["item-2", "item-1", "nobody", "item-3"])

    assert counts.found == {"process": [3, 4], "redis": [3, 1]}


async def test_nothing_loaded_is_said(server: RedisServer) -> None:
    async with store_of(server.url) as store:
        batch = await store.get_many(TOYS, ["item-1"])

        assert store.is_up
        assert batch.shortfall == "Redis holds no embeddings of toys by vitb32; load them"
        assert store.problems == [batch.shortfall]


@pytest.mark.parametrize("tier_bytes", [0, 1_000_000])
async def test_a_switch_gives_all_of_the_new_version_once_it_is_heard_of(server: RedisServer, tier_bytes: int) -> None:
    newer = ArraySource.random(200, seed=5)
    await load_into(server.url, SOURCE)
    async with store_of(server.url, tier_bytes=tier_bytes) as store:
        before = await store.get_many(TOYS, SOURCE.item_ids)
        await load_into(server.url, newer)
        await hear(store)
        after = await store.get_many(TOYS, SOURCE.item_ids)

    np.testing.assert_array_equal(before.features, SOURCE.features.astype(np.float32))
    np.testing.assert_array_equal(after.features, newer.features.astype(np.float32))


async def test_an_item_that_is_put_is_there_once_it_is_heard_of(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    changed, added = np.full((2, DIM), [[2.0], [3.0]])
    async with store_of(server.url, tier_bytes=1_000_000) as store, link_to(server.url) as link:
        before = await store.get_many(TOYS, ["item-1", "new", "item-2"])
        await put(link, TOYS, ["item-1", "new"], np.stack([changed, added]))
        await hear(store)
        after = await store.get_many(TOYS, ["item-1", "new", "item-2"])
        edition = await current_edition(link, TOYS)

    assert before.is_present.tolist() == [True, False, True]
    np.testing.assert_array_equal(after.features, [changed, added, SOURCE.features[1].astype(np.float32)])
    assert edition is not None
    assert (edition.num_items, edition.revision) == (201, 2)


async def test_more_changes_than_are_read_at_once_drop_all_that_was_kept(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_cache.remote.watcher.MOST_CHANGES", 2)
    await load_into(server.url, SOURCE)
    async with store_of(server.url, tier_bytes=1_000_000) as store, link_to(server.url) as link:
        await store.get_many(TOYS, SOURCE.item_ids)
        await put(link, TOYS, SOURCE.item_ids, np.ones((200, DIM)))
        await hear(store)
        batch = await store.get_many(TOYS, SOURCE.item_ids)

    assert (batch.features == 1).all()


async def test_what_was_read_before_a_put_is_not_kept_after_it(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    async with store_of(server.url, tier_bytes=1_000_000) as store, link_to(server.url) as link:
        reader = store._reader
        fetch = reader.fetch

        async def fetch_while_it_changes(known: object, item_ids: list[str]) -> object:
            fetched = await fetch(known, item_ids)  # type: ignore[arg-type]  # stands in for it
            await put(link, TOYS, ["item-1"], np.ones((1, DIM)))
            await hear(store)
            return fetched

        reader.fetch = fetch_while_it_changes  # type: ignore[method-assign, assignment]
        stale = await store.get_many(TOYS, ["item-1"])
        reader.fetch = fetch  # type: ignore[method-assign]
        fresh = await store.get_many(TOYS, ["item-1"])

    np.testing.assert_array_equal(stale.features[0], SOURCE.features[0].astype(np.float32))
    assert (fresh.features == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_a_value_that_the_network_cannot_take_is_a_counted_miss(server: RedisServer, value: float) -> None:
    edition = (await load_into(server.url, SOURCE)).edition
    row = np.ones(DIM, dtype=edition.codec.dtype)
    row[1] = value
    with server.client as client:
        content = row.tobytes() + edition.codec._checksum("item-1", row.tobytes())
        client.hset(edition.bucket_key(edition.bucket_of("item-1")), "item-1", content)
    counts = Counting()
    async with store_of(server.url, observer=counts) as store:
        batch = await store.get_many(TOYS, ["item-1", "item-5"])

    assert batch.is_present.tolist() == [False, True]
    assert not batch.features[0].any()
    assert batch.shortfall == "1 values in Redis are not embeddings by vitb32"
    assert counts.num_rejected == 1


async def test_a_value_that_is_no_embedding_of_the_item_is_a_counted_miss(server: RedisServer) -> None:
    loaded = await load_into(server.url, SOURCE)
    edition = loaded.edition

    def bucket(item_id: str) -> str:
        return edition.bucket_key(edition.bucket_of(item_id))

    with server.client as client:
        whole = client.hget(bucket("item-5"), "item-5")
        assert isinstance(whole, bytes)
        client.hset(bucket("item-1"), "item-1", whole)  # another item's
        client.hset(bucket("item-2"), "item-2", whole[:-1])  # cut off
        client.hset(bucket("item-3"), "item-3", "")
        other = replace(edition, space=replace(TOYS, encoder="vitb16"))
        client.hset(bucket("item-4"), "item-4", other.codec.encode(["item-4"], np.ones((1, DIM)))[0])
    counts = Counting()
    async with store_of(server.url, observer=counts) as store:
        batch = await store.get_many(TOYS, [f"item-{number}" for number in range(1, 6)])

    assert batch.is_present.tolist() == [False, False, False, False, True]
    assert not batch.features[:4].any()
    assert batch.shortfall == "4 values in Redis are not embeddings by vitb32"
    assert counts.num_rejected == 4
    assert counts.found == {"redis": [1, 4]}


async def test_a_key_of_another_type_costs_its_own_items_only(server: RedisServer) -> None:
    loaded = await load_into(server.url, SOURCE)
    key = loaded.edition.bucket_key(loaded.edition.bucket_of("item-1"))
    with server.client as client:
        client.delete(key)
        client.set(key, "something else")
    async with store_of(server.url) as store:
        batch = await store.get_many(TOYS, SOURCE.item_ids)
        is_up = store.is_up

    in_bucket = [loaded.edition.bucket_key(loaded.edition.bucket_of(each)) == key for each in SOURCE.item_ids]
    assert batch.is_present.tolist() == [not each for each in in_bucket]
    assert is_up


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoder", "vitl14", "by vitl14, 8 wide, but the model reads those by vitb32, 8 wide"),
        ("dim", "768", "by vitb32, 768 wide"),
        ("dtype", "int8", "cannot be read"),
        ("num_buckets", "0", "cannot be read"),
        ("num_slices", "x", "cannot be read"),
    ],
)
async def test_an_edition_that_does_not_fit_is_not_read(
    server: RedisServer, field: str, value: str, words: str
) -> None:
    loaded = await load_into(server.url, SOURCE)
    with server.client as client:
        client.hset(loaded.edition.keys.current, field, value)
    async with store_of(server.url) as store:
        batch = await store.get_many(TOYS, ["item-1"])

    assert not batch.is_present.any()
    assert words in batch.shortfall
