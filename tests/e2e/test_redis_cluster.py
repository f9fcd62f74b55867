"""A cluster and servers behind Sentinel answer as one server does, and lose no more than what is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feature_cache.remote.breakers import FAILURES_TO_OPEN
from feature_cache.remote.changes import put
from feature_cache.remote.reader import ReadLimits
from feature_cache.remote.verification import verify
from tests.e2e.features import DIM, TOYS, UNHURRIED, ArraySource, hear, link_to, load_into, silent, store_of
from tests.redis_servers import HOST, RedisServer, free_port, redis_cluster, redis_server, sentinel_group

SOURCE = ArraySource.random(2000)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def url_of(nodes: list[RedisServer]) -> str:
    return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in nodes)}"


@pytest.mark.parametrize("tier_bytes", [0, 10_000_000])
async def test_a_cluster_gives_every_item_exactly(nodes: list[RedisServer], tier_bytes: int) -> None:
    await load_into(url_of(nodes), SOURCE)
    async with store_of(url_of(nodes[1:2]), tier_bytes=tier_bytes) as store, link_to(url_of(nodes)) as link:
        for _ in range(2):
            batch = await store.get_many(TOYS, [*SOURCE.item_ids, "nobody"])
            assert batch.is_present.tolist() == [True] * 2000 + [False]
            np.testing.assert_array_equal(batch.features[:2000], SOURCE.features.astype(np.float32))
        await put(link, TOYS, ["new"], np.ones((1, DIM)))
        await hear(store)
        assert (await store.get_many(TOYS, ["new"])).features.tolist() == [[1.0] * DIM]
        assert (await verify(link, TOYS, SOURCE, 2000, silent)).faults == ()
    sizes = []
    for node in nodes:
        with node.client as client:
            sizes.append(client.dbsize())
    assert min(sizes) > 0  # where a slice falls depends on the version, so how many each holds does, too


async def test_a_node_that_hangs_costs_its_own_items_only_and_is_asked_again_when_it_is_back(
    nodes: list[RedisServer],
) -> None:
    await load_into(url_of(nodes), SOURCE)
    limits = ReadLimits(budget_s=0.2, max_concurrent=16, refresh_s=3600.0)
    async with store_of(url_of(nodes), limits=limits) as store:
        nodes[2].pause()
        try:
            during = [await store.get_many(TOYS, SOURCE.item_ids[:300]) for _ in range(FAILURES_TO_OPEN)]
            is_up, skipped = store.is_up, await store.get_many(TOYS, SOURCE.item_ids[:300])
        finally:
            nodes[2].resume()
        while not store.is_up:
            await hear(store)
        while not (after := await store.get_many(TOYS, SOURCE.item_ids[:300])).is_present.all():
            await hear(store)

    assert not is_up
    for batch in (*during, skipped):
        assert 0 < batch.is_present.sum() < 300
        exact = SOURCE.features[:300][batch.is_present].astype(np.float32)
        np.testing.assert_array_equal(batch.features[batch.is_present], exact)
    assert during[0].shortfall == "Redis did not answer within 200 ms"
    assert skipped.shortfall == "Redis does not answer"
    np.testing.assert_array_equal(after.features, SOURCE.features[:300].astype(np.float32))


async def test_a_slot_that_moved_is_found_again(nodes: list[RedisServer]) -> None:
    loaded = await load_into(url_of(nodes), SOURCE)
    async with store_of(url_of(nodes)) as store, link_to(url_of(nodes)) as link:
        await store.get_many(TOYS, SOURCE.item_ids)
        key = loaded.edition.bucket_key(loaded.edition.bucket_of("item-1"))
        _move_slot_of(key, nodes)
        moved = await store.get_many(TOYS, SOURCE.item_ids)
        while not moved.is_present.all():
            await hear(store)
            moved = await store.get_many(TOYS, SOURCE.item_ids)
        assert (await verify(link, TOYS, SOURCE, 2000, silent)).faults == ()

    np.testing.assert_array_equal(moved.features, SOURCE.features.astype(np.float32))


def _move_slot_of(key: str, nodes: list[RedisServer]) -> None:
    """To the next node, with all that lies in it."""
    with nodes[0].client as any_client:
        slot = any_client.execute_command("CLUSTER", "KEYSLOT", key)
    sizes = []
    for node in nodes:
        with node.client as client:
            sizes.append(int(client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)))
    source = nodes[int(np.argmax(sizes))]
    target = nodes[(int(np.argmax(sizes)) + 1) % len(nodes)]
    with source.client as giving, target.client as taking:
        giver, taker = (str(client.execute_command("CLUSTER", "MYID"), "ascii") for client in (giving, taking))
        taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", giver)
        giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", taker)
        keys = giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        giving.execute_command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        for client in (taking, giving):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", taker)


async def test_after_a_fail_over_the_replica_is_asked(tmp_path: Path) -> None:
    with sentinel_group(tmp_path) as group:
        await load_into(group.url, SOURCE)
        with group.servers[0].client as client:
            assert client.wait(1, 10_000) == 1  # the replica has it all
        async with store_of(group.url, limits=UNHURRIED) as store:
            before = await store.get_many(TOYS, SOURCE.item_ids)
            group.servers[0].kill()
            lost = await store.get_many(TOYS, SOURCE.item_ids)
            while group.master_port() != group.servers[1].port:
                pass
            await hear(store)
            after = await store.get_many(TOYS, SOURCE.item_ids)
            while not after.is_present.all():
                await hear(store)
                after = await store.get_many(TOYS, SOURCE.item_ids)
        newer = ArraySource.random(50, seed=4)
        await load_into(group.url, newer)
        async with link_to(group.servers[1].url) as link:
            assert (await verify(link, TOYS, newer, 50, silent)).faults == ()

    assert before.is_present.all()
    assert not lost.is_present.any()
    np.testing.assert_array_equal(after.features, SOURCE.features.astype(np.float32))


async def test_a_user_over_tls_and_a_socket_reach_the_same_server(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    socket = tmp_path / "redis.sock"
    # The plain port stays for the fixture; one more speaks TLS.
    with redis_server(tmp_path, "--unixsocket", str(socket), *_tls_options(certificate, key)) as server:
        with server.client as client:
            tls_port = free_port()
            client.config_set("tls-port", tls_port)
            client.execute_command(
                "ACL", "SETUSER", "shop", "on", ">s@cret", "~vip5:*", "+@read", "+@write", "+@scripting", "+@connection"
            )
            client.execute_command(
                "ACL", "SETUSER", "reader", "on", ">read", "~vip5:*", "+@read", "+@scripting", "+@connection"
            )
        options = f"?ssl_ca_certs={certificate}"
        urls = [f"rediss://shop:s%40cret@{HOST}:{tls_port}{options}", f"unix://reader:read@{socket}"]
        await load_into(urls[0], SOURCE)
        for url in urls:
            async with store_of(url) as store:
                assert (await store.get_many(TOYS, SOURCE.item_ids)).is_present.all()
        async with store_of(f"rediss://shop:s%40cret@{HOST}:{tls_port}") as store:
            untrusted = await store.get_many(TOYS, ["item-1"])
        async with store_of(f"rediss://shop:wrong@{HOST}:{tls_port}{options}") as store:
            unknown = await store.get_many(TOYS, ["item-1"])

    for batch in (untrusted, unknown):
        assert not batch.is_present.any()
        assert batch.shortfall == "Redis has not answered since the start"


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of this machine that nobody else vouches for, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    files = ["-addext", f"subjectAltName=IP:{HOST}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return certificate, key


def _tls_options(certificate: Path, key: Path) -> list[str]:
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    return [*files, "--tls-auth-clients", "no"]
