"""Who can write to Redis, and has not the secret, brings no embedding into a prompt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from redis import Redis

from feature_cache.remote.changes import put
from feature_cache.remote.layout import Edition
from feature_cache.remote.loading import LoadOptions, load
from feature_cache.remote.verification import verify
from feature_cache.signing import Signing
from feature_cache.store import FeatureSpace
from tests.e2e.features import DIM, TOYS, ArraySource, hear, link_to, load_into, silent, store_of
from tests.e2e.test_redis_features import Counting
from tests.redis_servers import RedisServer

SOURCE = ArraySource.random(40)
SIGNING = Signing("a secret of many characters")
GAMES = FeatureSpace("games", "vitb32", DIM)
VICTIM, OTHER = "item-1", "item-2"
Values = Mapping[str, bytes]


def value_of(client: Redis, edition: Edition, item_id: str) -> bytes:
    found = client.hget(edition.bucket_key(edition.bucket_of(item_id)), item_id)
    assert isinstance(found, bytes)
    return found


def overwrite(client: Redis, edition: Edition, item_id: str, value: bytes) -> None:
    client.hset(edition.bucket_key(edition.bucket_of(item_id)), item_id, value)


def forged(edition: Edition, signing: Signing | None, item_id: str = VICTIM) -> bytes:
    return replace(edition, signing=signing).codec.encode([item_id], np.ones((1, DIM)))[0]


FORGERIES: Mapping[str, Callable[[Edition, Values], bytes]] = {
    "unsigned": lambda edition, _: forged(edition, None),
    "signed with another secret": lambda edition, _: forged(edition, Signing("another secret of characters")),
    "another item's": lambda _, values: values["other item"],
    "another domain's": lambda _, values: values["other domain"],
    "another version's": lambda _, values: values["other version"],
    "other floats under a signature": lambda edition, values: forged(edition, None) + values["own"][-16:],
    "cut off": lambda _, values: values["own"][:-1],
    "without its signature": lambda _, values: values["own"][:-16],
    "signature of zeros": lambda edition, _: forged(edition, None) + bytes(16),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_a_value_that_was_not_signed_for_its_place_counts_as_missing_with_a_reason(
    server: RedisServer, forge: Callable[[Edition, Values], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    observer = Counting()
    games = (await load_into(server.url, SOURCE, GAMES, signing=SIGNING)).edition
    former = (await load_into(server.url, SOURCE, signing=SIGNING)).edition
    with server.client as client:
        of_former = value_of(client, former, VICTIM)
        edition = (await load_into(server.url, SOURCE, signing=SIGNING)).edition
        own = value_of(client, edition, VICTIM)
        values = {
            "own": own,
            "other item": value_of(client, edition, OTHER),
            "other domain": value_of(client, games, VICTIM),
            "other version": of_former,
        }
        async with store_of(server.url, observer=observer, signing=SIGNING) as store:
            sound = await store.get_many(TOYS, [VICTIM, OTHER])
            np.testing.assert_array_equal(sound.features, SOURCE.features[:2].astype(np.float32))
            caplog.set_level(logging.ERROR)
            overwrite(client, edition, VICTIM, forge(edition, values))
            for _ in range(2):
                batch = await store.get_many(TOYS, [VICTIM, OTHER])
                assert batch.is_present.tolist() == [False, True]
                assert batch.shortfall == "1 values in Redis are not embeddings by vitb32 with a valid signature"
            assert observer.num_rejected == 2
            refused = [each.message for each in caplog.records if each.name == "feature_cache.remote.refused"]
            assert refused == ["feature_values_refused"]
            (problem,) = store.problems
            assert "values of 1 items of toys" in problem
            assert "not signed for them with VIP5_SIGNING_SECRET" in problem
            assert "'item-1'" in problem
            async with link_to(server.url) as link:
                found = await verify(link, TOYS, SOURCE, 10, silent, SIGNING)
                assert "without a valid signature" in found.faults[0]

            overwrite(client, edition, VICTIM, own)
            assert (await store.get_many(TOYS, [VICTIM])).is_present.all()
            assert store.problems == []


async def test_swapping_two_items_is_noticed(server: RedisServer) -> None:
    edition = (await load_into(server.url, SOURCE, signing=SIGNING)).edition
    with server.client as client:
        one, other = (value_of(client, edition, each) for each in (VICTIM, OTHER))
        overwrite(client, edition, VICTIM, other)
        overwrite(client, edition, OTHER, one)
    async with store_of(server.url, signing=SIGNING) as store:
        assert (await store.get_many(TOYS, [VICTIM, OTHER, "item-3"])).is_present.tolist() == [False, False, True]


async def test_without_a_secret_nothing_changes_and_signed_values_are_read(server: RedisServer) -> None:
    edition = (await load_into(server.url, SOURCE)).edition
    with server.client as client:
        assert len(value_of(client, edition, VICTIM)) == 2 * DIM + 4
    edition = (await load_into(server.url, SOURCE, signing=SIGNING)).edition
    with server.client as client:
        assert len(value_of(client, edition, VICTIM)) == 2 * DIM + 4 + 16
        assert "signing" not in edition.record
    async with store_of(server.url) as store:
        batch = await store.get_many(TOYS, SOURCE.item_ids)
        np.testing.assert_array_equal(batch.features, SOURCE.features.astype(np.float32))


async def test_signing_is_introduced_and_the_secret_is_changed_without_a_gap(server: RedisServer) -> None:
    introducing = replace(SIGNING, accepts_unsigned=True)
    changing = Signing("the next secret of this service", other=SIGNING.secret)
    await load_into(server.url, SOURCE)
    async with (
        store_of(server.url, signing=introducing) as lenient,
        store_of(server.url, signing=SIGNING) as strict,
        store_of(server.url, signing=changing) as changed,
    ):
        assert (await lenient.get_many(TOYS, SOURCE.item_ids)).is_present.all()
        assert not (await strict.get_many(TOYS, SOURCE.item_ids)).is_present.any()
        async with link_to(server.url) as link:
            await put(link, TOYS, [VICTIM], np.ones((1, DIM)), SIGNING)
        await hear(strict)
        assert (await strict.get_many(TOYS, [VICTIM, OTHER])).is_present.tolist() == [True, False]
        await load_into(server.url, SOURCE, signing=SIGNING)
        for store in (lenient, strict, changed):
            await hear(store)
            assert (await store.get_many(TOYS, SOURCE.item_ids)).is_present.all()
            assert store.problems == []
        await load_into(server.url, SOURCE, signing=changing)
        await hear(changed)
        assert (await changed.get_many(TOYS, SOURCE.item_ids)).is_present.all()


async def test_a_load_carries_no_forgery_over(server: RedisServer) -> None:
    edition = (await load_into(server.url, SOURCE, signing=SIGNING)).edition
    with server.client as client:

        def put_otherwise(what: str, done: int, total: int | None) -> None:
            if done != len(SOURCE.item_ids):
                return
            for name, signing in (("sound", SIGNING), ("forged", None)):
                overwrite(client, edition, name, forged(edition, signing, name))
                revision = client.hincrby(edition.keys.current, "revision", 1)
                client.xadd(edition.keys.changes(edition.version), {"item_id": name}, f"{revision}-0")

        async with link_to(server.url) as link:
            options = LoadOptions(grace_s=0.0, signing=SIGNING)
            loaded = await load(link, TOYS, SOURCE, options, put_otherwise)
        assert (loaded.num_carried_over, loaded.num_lost) == (1, 1)
        async with store_of(server.url, signing=SIGNING) as store:
            assert (await store.get_many(TOYS, ["sound", "forged"])).is_present.tolist() == [True, False]
