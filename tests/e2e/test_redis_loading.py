"""Filling a real Redis: whole versions or nothing, and what is wrong is found."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from feature_cache.errors import FeatureCacheError, FeatureValueError, NotLoadedError, RedisUnavailableError
from feature_cache.remote.changes import put
from feature_cache.remote.loading import LoadOptions, load
from feature_cache.remote.memory import advice
from feature_cache.remote.verification import verify
from feature_cache.remote.versions import current_edition, drop_version, list_versions
from feature_cache.store import FeatureSpace
from tests.e2e.features import DIM, TOYS, ArraySource, hear, link_to, load_into, silent, store_of
from tests.redis_servers import RedisServer

SOURCE = ArraySource.random(200)


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
        between = await store.get_many(TOYS, SOURCE.item_ids)
        states = [each.state for each in await list_versions(link, TOYS)]
        num_keys = await link.run("DBSIZE")

        last = await load(link, TOYS, newer, LoadOptions(grace_s=0.0), silent)
        await hear(store)
        after = await store.get_many(TOYS, SOURCE.item_ids)
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
        batch = await store.get_many(TOYS, ["item-1", "new", "item-2"])
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
        batch = await store.get_many(TOYS, SOURCE.item_ids)

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
        batch = await store.get_many(TOYS, ["item-1"])
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
        keys = map(loaded.edition.bucket_key, range(loaded.edition.num_buckets))
        encodings = {await link.run("OBJECT", "ENCODING", key) for key in keys}

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
        f"199 items of 199 compared differ from the source: {first_five}, …",
        "1 items of the source are missing: 'elsewhere'",
        "1 items are in Redis, but not in the source: 'item-200'",
    )
    assert broken.faults == (
        "1 items have values that are truncated, of another encoder, or in the wrong bucket: 'item-2'",
        "199 items are present, but 200 were loaded and put",
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


@pytest.mark.parametrize("record", [b"garbage", b"[1]", b'{"state": "complete"}', b'{"edition": {"dim": "x"}}'])
async def test_records_and_changes_that_nobody_of_ours_wrote_stop_no_load(server: RedisServer, record: bytes) -> None:
    edition = (await load_into(server.url, SOURCE)).edition
    with server.client as client:
        client.hset(edition.keys.versions, "\udcff".encode(errors="surrogateescape"), record)
        client.hset(edition.keys.versions, "other", record)
        client.xadd(edition.keys.changes(edition.version), {"wrong": "field"})
        client.xadd(edition.keys.changes(edition.version), {"item_id": b"\xff"})
    async with link_to(server.url) as link:
        assert [each.edition for each in await list_versions(link, TOYS) if each.version == "other"] == [None]
        assert (await verify(link, TOYS, SOURCE, 10, silent)).faults == ()
        await load(link, TOYS, SOURCE, LoadOptions(grace_s=0.0), silent)
        assert (await verify(link, TOYS, SOURCE, 10, silent)).faults == ()
        assert not [each for each in await list_versions(link, TOYS) if each.version == "other"]
