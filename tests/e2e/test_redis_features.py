"""Embeddings in a real Redis: what is loaded is what is read, whole versions at a time, and nothing else ever is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_cache.codec import DType
from feature_cache.errors import FeatureCacheError, FeatureValueError, NotLoadedError, RedisUnavailableError
from feature_cache.remote.changes import put
from feature_cache.remote.loading import LoadOptions, load
from feature_cache.remote.memory import advice
from feature_cache.remote.verification import verify
from feature_cache.remote.versions import current_edition, drop_version, list_versions
from feature_cache.store import FeatureSpace
from tests.e2e.features import DIM, TOYS, ArraySource, hear, link_to, load_into, silent, store_of
from tests.redis_servers import RedisServer, redis_server

SOURCE = ArraySource.random(200)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """Empty."""
    with shared_server.client as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return shared_server


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
        batch = await store.get_many("toys", ["item-9", "nobody", "item-3", "item-9"])

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
                batch = await store.get_many("toys", source.item_ids)
                assert batch.is_present.all()
                np.testing.assert_array_equal(batch.features, features.astype(np.float32))


async def test_no_items_give_an_empty_batch(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    async with store_of(server.url, tier_bytes=1000) as store:
        assert (await store.get_many("toys", [])).features.shape == (0, DIM)


async def test_the_process_answers_what_it_was_asked_before(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    counts = Counting()
    async with store_of(server.url, tier_bytes=1_000_000, observer=counts) as store:
        await store.get_many("toys", ["item-1", "item-2", "nobody"])
        await store.get_many("toys", ["item-2", "item-1", "nobody", "item-3"])

    assert counts.found == {"process": [3, 4], "redis": [3, 1]}


async def test_nothing_loaded_is_said(server: RedisServer) -> None:
    async with store_of(server.url) as store:
        batch = await store.get_many("toys", ["item-1"])

        assert store.is_up
        assert batch.shortfall == "Redis holds no embeddings of toys by vitb32; load them"
        assert store.problems == [batch.shortfall]


@pytest.mark.parametrize("tier_bytes", [0, 1_000_000])
async def test_a_switch_gives_all_of_the_new_version_once_it_is_heard_of(server: RedisServer, tier_bytes: int) -> None:
    newer = ArraySource.random(200, seed=5)
    await load_into(server.url, SOURCE)
    async with store_of(server.url, tier_bytes=tier_bytes) as store:
        before = await store.get_many("toys", SOURCE.item_ids)
        await load_into(server.url, newer)
        await hear(store)
        after = await store.get_many("toys", SOURCE.item_ids)

    np.testing.assert_array_equal(before.features, SOURCE.features.astype(np.float32))
    np.testing.assert_array_equal(after.features, newer.features.astype(np.float32))


async def test_an_item_that_is_put_is_there_once_it_is_heard_of(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    changed, added = np.full((2, DIM), [[2.0], [3.0]])
    async with store_of(server.url, tier_bytes=1_000_000) as store, link_to(server.url) as link:
        before = await store.get_many("toys", ["item-1", "new", "item-2"])
        await put(link, TOYS, ["item-1", "new"], np.stack([changed, added]))
        await hear(store)
        after = await store.get_many("toys", ["item-1", "new", "item-2"])
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
        await store.get_many("toys", SOURCE.item_ids)
        await put(link, TOYS, SOURCE.item_ids, np.ones((200, DIM)))
        await hear(store)
        batch = await store.get_many("toys", SOURCE.item_ids)

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
        stale = await store.get_many("toys", ["item-1"])
        reader.fetch = fetch  # type: ignore[method-assign]
        fresh = await store.get_many("toys", ["item-1"])

    np.testing.assert_array_equal(stale.features[0], SOURCE.features[0].astype(np.float32))
    assert (fresh.features == 1).all()


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
        batch = await store.get_many("toys", [f"item-{number}" for number in range(1, 6)])

    assert batch.is_present.tolist() == [False, False, False, False, True]
    assert not batch.features[:4].any()
    assert batch.shortfall == "4 values in Redis are no embeddings by vitb32"
    assert counts.num_rejected == 4
    assert counts.found == {"redis": [1, 4]}


async def test_a_key_of_another_type_costs_its_own_items_only(server: RedisServer) -> None:
    loaded = await load_into(server.url, SOURCE)
    key = loaded.edition.bucket_key(loaded.edition.bucket_of("item-1"))
    with server.client as client:
        client.delete(key)
        client.set(key, "something else")
    async with store_of(server.url) as store:
        batch = await store.get_many("toys", SOURCE.item_ids)
        is_up = store.is_up

    in_bucket = [loaded.edition.bucket_key(loaded.edition.bucket_of(each)) == key for each in SOURCE.item_ids]
    assert batch.is_present.tolist() == [not each for each in in_bucket]
    assert is_up


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoder", "vitl14", "by vitl14, 8 wide, but its model reads those of vitb32, 8 wide"),
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
        batch = await store.get_many("toys", ["item-1"])

    assert not batch.is_present.any()
    assert words in batch.shortfall


class StoppedError(Exception):
    """The load was stopped on its way."""


def stop(what: str, done: int, total: int | None) -> None:
    raise StoppedError


async def test_a_load_that_stops_half_way_leaves_the_old_version_and_the_next_one_removes_its_remains(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_cache.remote.loading.BATCH_BYTES", 500)
    newer = ArraySource.random(200, seed=5)
    await load_into(server.url, SOURCE)
    async with store_of(server.url) as store, link_to(server.url) as link:
        with pytest.raises(StoppedError):
            await load(link, TOYS, newer, LoadOptions(grace_s=0.0), stop)
        await hear(store)
        between = await store.get_many("toys", SOURCE.item_ids)
        states = [each.state for each in await list_versions(link, TOYS)]
        num_keys = await link.run("DBSIZE")

        last = await load(link, TOYS, newer, LoadOptions(grace_s=0.0), silent)
        await hear(store)
        after = await store.get_many("toys", SOURCE.item_ids)
        keys = await link.run("KEYS", "*")

    np.testing.assert_array_equal(between.features, SOURCE.features.astype(np.float32))
    assert states == ["complete", "loading"]
    assert num_keys > last.edition.num_buckets + 2  # some of the half-loaded version's buckets are there
    np.testing.assert_array_equal(after.features, newer.features.astype(np.float32))
    assert len(last.dropped) == 2
    others = sorted(key.decode() for key in keys if last.edition.version.encode() not in key)
    assert others == sorted([last.edition.keys.current, last.edition.keys.versions])


async def test_a_load_that_was_killed_keeps_others_out_only_until_its_lock_runs_out(server: RedisServer) -> None:
    loaded = await load_into(server.url, SOURCE)
    key = loaded.edition.keys.loading
    with server.client as client:
        client.set(key, "of a dead process", ex=60)
        with pytest.raises(RedisUnavailableError, match="another load of these embeddings is running, or was killed"):
            await load_into(server.url, SOURCE)
        assert client.get(key) == b"of a dead process"
        client.delete(key)
    await load_into(server.url, SOURCE)


async def test_a_load_that_lost_its_lock_does_not_switch(server: RedisServer) -> None:
    first = await load_into(server.url, SOURCE)

    def steal(what: str, done: int, total: int | None) -> None:
        with server.client as client:
            client.set(first.edition.keys.loading, "of another process")

    async with link_to(server.url) as link:
        with pytest.raises(RedisUnavailableError, match="lost its lock"):
            await load(link, TOYS, SOURCE, LoadOptions(grace_s=0.0), steal)
        edition = await current_edition(link, TOYS)

    assert edition is not None
    assert edition.version == first.edition.version


async def test_items_put_while_a_load_runs_are_carried_over(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    newer = ArraySource.random(200, seed=5)
    put_there = np.full((2, DIM), [[2.0], [3.0]])
    async with link_to(server.url) as link, store_of(server.url) as store:
        tasks = []

        def put_now(what: str, done: int, total: int | None) -> None:
            if done == 200:
                tasks.append(asyncio.create_task(put(link, TOYS, ["item-1", "new"], put_there)))

        # The switch is held back until the items were put.
        run = link.run

        async def run_after_putting(*command: str | int | bytes) -> object:
            if tasks and not tasks[0].done():
                link.run = run  # type: ignore[method-assign]
                await tasks[0]
            return await run(*command)

        link.run = run_after_putting  # type: ignore[method-assign]
        loaded = await load(link, TOYS, newer, LoadOptions(grace_s=0.0), put_now)
        await hear(store)
        batch = await store.get_many("toys", ["item-1", "new", "item-2"])
        found = await verify(link, TOYS, None, 0, silent)

    assert (loaded.num_carried_over, loaded.num_lost) == (2, 0)
    np.testing.assert_array_equal(batch.features, [*put_there, newer.features[1].astype(np.float32)])
    assert found.faults == ()
    assert found.num_items == 201


async def test_a_full_redis_refuses_a_load_and_serves_on(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    with server.client as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]))
    with pytest.raises(RedisUnavailableError, match="used memory > 'maxmemory'"):
        await load_into(server.url, ArraySource.random(2000, seed=5))
    async with store_of(server.url) as store:
        batch = await store.get_many("toys", SOURCE.item_ids)

    np.testing.assert_array_equal(batch.features, SOURCE.features.astype(np.float32))


async def test_other_domains_and_encoders_have_their_own(server: RedisServer) -> None:
    for space in (TOYS, FeatureSpace("toys", "vitl14", DIM), FeatureSpace("toys:vitb32", "x", DIM)):
        await load_into(server.url, SOURCE, space)
    newer = ArraySource.random(200, seed=5)
    await load_into(server.url, newer)
    async with link_to(server.url) as link:
        for space in (FeatureSpace("toys", "vitl14", DIM), FeatureSpace("toys:vitb32", "x", DIM)):
            assert (await verify(link, space, SOURCE, 200, silent)).faults == ()
        assert (await verify(link, TOYS, newer, 200, silent)).faults == ()


async def test_a_dropped_version_leaves_nothing_behind(server: RedisServer) -> None:
    loaded = await load_into(server.url, SOURCE)
    async with link_to(server.url) as link, store_of(server.url) as store:
        await put(link, TOYS, ["new"], np.ones((1, DIM)))
        await drop_version(link, TOYS, loaded.edition.version)
        await hear(store)
        batch = await store.get_many("toys", ["item-1"])
        assert await link.run("DBSIZE") == 0
        with pytest.raises(NotLoadedError, match="no version 'x'"):
            await drop_version(link, TOYS, "x")
        with pytest.raises(NotLoadedError, match="load them with"):
            await put(link, TOYS, ["new"], np.ones((1, DIM)))

    assert not batch.is_present.any()


@pytest.mark.parametrize("num_items", [1, 5000])
async def test_redis_packs_the_buckets(server: RedisServer, num_items: int) -> None:
    space = FeatureSpace("toys", "vitb32", 512)
    loaded = await load_into(server.url, ArraySource.random(num_items, dim=512), space)
    async with link_to(server.url) as link:
        encodings = {await link.run("OBJECT", "ENCODING", key) for key in loaded.edition.all_bucket_keys()}

        assert encodings - {None} == {b"listpack"}
        assert await advice(link, loaded.edition) == ""
        with server.client as client:
            client.config_set("hash-max-listpack-value", 64)
        try:
            loaded = await load_into(server.url, ArraySource.random(num_items, dim=512), space)
            assert "hash-max-listpack-value is below 1028" in await advice(link, loaded.edition)
        finally:
            with server.client as client:
                client.config_set("hash-max-listpack-value", 8192)


async def test_verifying_finds_what_is_wrong(server: RedisServer) -> None:
    loaded = await load_into(server.url, SOURCE)
    other = ArraySource([*SOURCE.item_ids[:-1], "elsewhere"], SOURCE.features + np.float16(1))
    keys = {each: loaded.edition.bucket_key(loaded.edition.bucket_of(each)) for each in SOURCE.item_ids}
    first_five = "'item-1', 'item-10', 'item-100', 'item-101', 'item-102'"
    async with link_to(server.url) as link:
        sound = await verify(link, TOYS, SOURCE, 50, silent)
        against_other = await verify(link, TOYS, other, 200, silent)
        await link.run("HDEL", keys["item-1"], "item-1")
        await link.run("HSET", keys["item-2"], "item-2", b"x" * 20)
        broken = await verify(link, TOYS, SOURCE, 200, silent)

    assert (sound.faults, sound.num_items, sound.num_compared) == ((), 200, 50)
    assert against_other.faults == (
        f"199 items of 199 compared are not those of the source: {first_five}, …",
        "1 items of the source are missing: 'elsewhere'",
        "1 items are in Redis, but not in the source: 'item-200'",
    )
    assert broken.faults == (
        "1 items have values that are cut off, of another encoder, or not where they belong: 'item-2'",
        "199 items are there, but 200 were loaded and put",
        "2 items of the source are missing: 'item-1', 'item-2'",
    )


async def test_what_is_no_embedding_is_not_put(server: RedisServer) -> None:
    await load_into(server.url, SOURCE)
    async with link_to(server.url) as link:
        for bad in (np.ones((1, DIM + 1)), np.full((1, DIM), np.nan)):
            with pytest.raises(FeatureValueError):
                await put(link, TOYS, ["item-1"], bad)
        assert (await verify(link, TOYS, SOURCE, 200, silent)).faults == ()


async def test_a_redis_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(FeatureCacheError, match=r"Redis at 127\.0\.0\.1:1 does not answer") as refusal:
        async with link_to("redis://:secret@127.0.0.1:1"):
            pass

    assert "secret" not in str(refusal.value)
