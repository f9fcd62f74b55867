"""Replicas that are killed, stopped and started under load serve the same at the same revision, and fail no request."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.fleet import Fleet, Replica, State, differing, hashes_of, wrong
from tests.e2e.live import live_bundles, live_environment
from tests.redis_servers import RedisServer

LEASE_S = 20
SHARE = 0.5


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundles(tmp_path_factory.mktemp("live"), ("first", "second", "third"))


def fleet_of(bundles: Path, server: RedisServer, hashes: dict[str, str]) -> Fleet:
    environment = live_environment(
        bundles,
        VIP5_JOURNAL="redis",
        VIP5_REDIS_URL=server.url,
        VIP5_SERVICE_ID="shop",
        VIP5_REPLICA_LEASE_S=str(LEASE_S),
        VIP5_MAX_LAG_S=str(LEASE_S),
    )
    return Fleet(bundles / "first", environment, State(0, hashes["first"]))


async def stock(fleet: Fleet, at: str, **change: Any) -> None:  # noqa: ANN401  # items
    await fleet.change(at, "PATCH", "/catalog", change, revision=fleet.state.revision + 1)


async def canary(fleet: Fleet, at: str, bundle: str, digest: str) -> None:
    """Load a bundle for a part of the users."""
    body = await fleet.change(at, "POST", "/load", {"bundle": bundle})
    (loaded,) = [each["version"] for each in body["versions"] if "loaded" in each["roles"]]
    await fleet.change(at, "POST", "/canary", {"version": loaded, "share": SHARE}, canary=digest)


async def ask_while_stopped(fleet: Fleet, replica: Replica, at: str) -> None:
    """Change what is served while a replica is stopped; what it is asked then, it answers from the change or not."""
    replica.send(signal.SIGSTOP)
    try:
        await stock(fleet, at, deactivate=["item-5"])  # waits until the lease of the stopped one has ended
        async with httpx.AsyncClient(base_url=replica.server.url, timeout=60) as client:
            asked = [asyncio.create_task(replica.ask(client, number)) for number in range(5)]
            await asyncio.sleep(0)  # the requests are on their way
            await stock(fleet, at, activate=["item-5"])
            replica.send(signal.SIGCONT)
            replica.seen += await asyncio.gather(*asked)
    finally:
        replica.send(signal.SIGCONT)


async def test_whatever_happens_to_replicas_every_answer_is_from_the_revision_it_may_have(
    bundles: Path, server: RedisServer
) -> None:
    hashes = hashes_of(bundles)
    fleet = fleet_of(bundles, server, hashes)
    try:
        await asyncio.gather(*(fleet.start(name) for name in ("a", "b", "c")))
        await fleet.more(5)
        await stock(fleet, "a", deactivate=["item-1", "item-2"])
        await canary(fleet, "b", "second", hashes["second"])
        await fleet.more(10)
        await fleet.change("c", "POST", "/canary/promote", stable=hashes["second"], canary=None)
        await fleet.more(5)

        fleet.replicas["c"].send(signal.SIGKILL)
        starting = asyncio.create_task(fleet.start("d"))
        await fleet.change("a", "POST", "/rollback", stable=hashes["first"])
        boosts = {"columns": {"category": {"dolls": 3.0}}}
        await fleet.change("b", "PUT", "/boosts", boosts, revision=fleet.state.revision + 1)
        await starting
        await fleet.more(10)

        await ask_while_stopped(fleet, fleet.replicas["b"], "a")
        await fleet.more(10)
        await canary(fleet, "d", "third", hashes["third"])
        await fleet.more(10)
        await fleet.change("b", "DELETE", "/canary", canary=None)
        await fleet.change("d", "DELETE", "/boosts", revision=fleet.state.revision + 1)
        await fleet.more(5)
        listed = (await fleet.admin("d", "GET", "/replicas")).json()["replicas"]
    finally:
        await fleet.close()

    assert {each["name"]: each["state"] for each in listed} == dict.fromkeys("abd", "serving") | {"c": "lost"}
    every = [seen for replica in fleet.replicas.values() for seen in replica.seen]
    assert [*wrong(every, fleet.changes)] == []
    assert [*differing(every, fleet.changes)] == []
    # While b was stopped, a request of its may have come too slowly (408).
    for name, failures in (("a", set()), ("b", {408, 503}), ("d", set())):
        assert {each.status for each in every if each.replica == name} <= {200} | failures
    shares = {each.body["bundle"] for each in every if each.status == 200}
    assert shares == set(hashes.values()), "each of the bundles has answered"
