"""Users' histories in a real Redis: the same as in the embedded store, with every fault told and nothing half done."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_cache.background import Background
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.breakers import FAILURES_TO_OPEN
from feature_cache.remote.link import connect
from service.errors import HistoriesUnavailableError
from service.histories.embedded import EmbeddedOptions, EmbeddedStore
from service.histories.events import Event, Retention, UserKey
from service.histories.redis_store import RedisOptions, RedisStore
from service.histories.store import HistoryStore
from tests.redis_servers import RedisServer, redis_cluster, redis_server

START_S = 1_700_000_000.0
RETENTION = Retention(max_events=4, lifetime_ms=100_000, max_shown=3)
HALF_LIFE_MS = 50_000
ANN, BOB = UserKey("toys", "ann"), UserKey("toys", "bob")


@dataclass
class Clock:
    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


def in_redis(url: str, clock: Clock, read_s: float = 5.0, retention: Retention = RETENTION) -> RedisStore:
    return RedisStore(connect(RedisAddress.parse(url)), RedisOptions("vip5", read_s, 4, HALF_LIFE_MS), retention, clock)


@asynccontextmanager
async def embedded(path: Path, clock: Clock, retention: Retention = RETENTION) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(EmbeddedOptions(path, 100, HALF_LIFE_MS), retention, clock)
    store.load()
    async with Background().kept("histories", store.run, end=store.end):
        yield store
    store.close()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([ANN, BOB]),
        st.builds(
            Event,
            st.sampled_from(["a", "b", "ü/{}", "d"]),
            st.integers(-110, 5).map(lambda seconds: round((START_S + seconds) * 1000)),
            st.sampled_from(["", "view"]),
            st.sampled_from(["", "", "1", "2", "3", "x:{y}"]),
        ),
    ),
    min_size=1,
    max_size=8,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), EVENTS),
        st.tuples(st.just("erase"), st.sampled_from([ANN, BOB])),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("show"), st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4)),
    ),
    max_size=8,
)


async def follow(store: HistoryStore, steps: list[tuple[str, object]], clock: Clock) -> list[object]:
    """All that a store says."""
    said: list[object] = []
    for kind, value in steps:
        match kind, value:
            case "add", list():
                said.append(await store.add(value))
            case "erase", UserKey():
                said.append(await store.erase(value))
            case "wait", int():
                clock.now_s += value
            case "show", list():
                await store.note_shown(BOB, value)
        said += [await store.read(user, limit) for user in (ANN, BOB) for limit in (2, 10)]
        said.append(await store.shown(BOB))
        popular = await store.popular("toys")
        said.append({item_id: pytest.approx(count, rel=1e-6) for item_id, count in popular.items()})
    return said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_both_stores_give_the_same_histories(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, object]]
) -> None:
    monkeypatch.setattr("service.histories.redis_store.POPULAR_S", 0.0)

    async def compare() -> None:
        with server.client as client, tempfile.TemporaryDirectory() as folder:
            client.flushall()
            clock = Clock()
            store = in_redis(server.url, clock)
            in_server = await follow(store, steps, clock)
            await store.close()
            clock = Clock()
            path = Path(folder) / "histories.jsonl"
            async with embedded(path, clock) as other:
                assert await follow(other, steps, clock) == in_server
            async with embedded(path, clock) as again:  # what was said is in the file
                assert [await again.read(user, 10) for user in (ANN, BOB)] == [
                    await other.read(user, 10) for user in (ANN, BOB)
                ]

    asyncio.run(compare())


def at(*ages_s: float) -> list[Event]:
    return [Event(f"item-{number}", round((START_S - age_s) * 1000)) for number, age_s in enumerate(ages_s)]


@asynccontextmanager
async def store_in(url: str, clock: Clock, read_s: float = 5.0) -> AsyncIterator[RedisStore]:
    store = in_redis(url, clock, read_s)
    try:
        yield store
    finally:
        await store.close()


async def test_what_is_kept_of_a_user_expires_with_the_newest_event(server: RedisServer) -> None:
    async with store_in(server.url, Clock()) as store:
        await store.add([(ANN, each) for each in at(60, 30)])
        await store.note_shown(ANN, ["item-1"])
        with server.client as client:
            left_ms = {key.decode(): client.pttl(key) for key in client.keys("*")}
    assert {key.rpartition(":")[2] for key in left_ms} == {"ann", "popular"}
    assert len(left_ms) == 3
    events = left_ms["vip5:{vip5:toys:0}:h:ann"]
    assert 60_000 < events <= 70_000
    assert all(0 < each <= 100_000 for each in left_ms.values())


async def test_erasure_leaves_no_key_that_names_the_user(server: RedisServer) -> None:
    async with store_in(server.url, Clock()) as store:
        await store.add([(user, each) for user in (ANN, BOB) for each in at(2, 1)])
        await store.note_shown(ANN, ["item-1"])
        assert await store.erase(ANN) == 2
        assert await store.erase(ANN) == 0
        with server.client as client:
            keys = client.keys("*")
            assert sorted(keys) == [b"vip5:{vip5:toys:0}:h:bob", b"vip5:{vip5:toys:0}:popular"]
            assert not any(b"ann" in client.dump(key) for key in keys)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that may be stopped."""
    with redis_server(tmp_path) as server:
        yield server


Step: TypeAlias = Callable[[RedisServer], object]


def command(*words: str) -> Step:
    """Send a command to the server, over a connection that the fault does not concern."""

    def run(server: RedisServer) -> None:
        with server.client as client:
            client.execute_command(*words)

    return run


def saved_and_killed(server: RedisServer) -> None:
    command("SAVE")(server)
    server.kill()


FAULTS: Mapping[str, tuple[Step, Step]] = {
    "killed": (saved_and_killed, RedisServer.start),
    "paused": (RedisServer.pause, RedisServer.resume),
    "full": (command("CONFIG", "SET", "maxmemory", "1"), command("CONFIG", "SET", "maxmemory", "0")),
    "read_only": (command("REPLICAOF", "127.0.0.1", "1"), command("REPLICAOF", "NO", "ONE")),
    "forbidden": (
        command("ACL", "SETUSER", "default", "-eval"),
        command("ACL", "SETUSER", "default", "+eval"),
    ),
}
"""How a server comes to a fault, and out of it."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_redis_at_fault_refuses_all_of_a_list_and_serves_again_when_it_is_back(
    own_server: RedisServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.histories.redis_store.WRITE_S", 0.3)
    break_it, mend_it = FAULTS[fault]
    is_silent = fault in {"killed", "paused"}
    async with store_in(own_server.url, Clock(), read_s=0.3) as store:
        await store.add([(ANN, each) for each in at(9)])
        break_it(own_server)
        with pytest.raises(HistoriesUnavailableError) as refused:
            await store.add([(user, each) for user in (ANN, BOB) for each in at(8, 7)])
        assert refused.value.retry_after_s == 1
        assert "ann" not in str(refused.value)
        assert refused.value.__cause__ is None
        if is_silent:
            with pytest.raises(HistoriesUnavailableError):
                await store.read(ANN, 10)
        else:
            assert await store.read(ANN, 10) == at(9)
        mend_it(own_server)
        await store.watcher.poll()
        if fault != "paused":  # then the list that was given up may arrive in the end, as a whole
            assert await store.read(ANN, 10) == at(9)
            assert await store.read(BOB, 10) == []
        await store.add([(user, each) for user in (ANN, BOB) for each in at(8, 7)])
        assert (len(await store.read(ANN, 10)), len(await store.read(BOB, 10))) == (3, 2)


async def test_a_redis_that_is_down_is_not_waited_for_again_and_again(own_server: RedisServer) -> None:
    async with store_in(own_server.url, Clock()) as store:
        await store.watcher.poll()
        assert store.problems == []
        own_server.kill()
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(HistoriesUnavailableError):
                await store.read(ANN, 10)
        assert not store.is_up
        assert store.problems == ["Redis, which stores histories, does not answer in time"]
        with pytest.raises(HistoriesUnavailableError, match="did not answer lately"):
            await store.read(ANN, 10)
        own_server.start()
        await store.watcher.poll()
        assert store.problems == []
        assert await store.read(ANN, 10) == []


async def test_in_a_cluster_a_list_is_kept_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    users = [UserKey("toys", f"user-{number}") for number in range(60)]
    with redis_cluster(tmp_path) as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        async with store_in(url, Clock()) as store:
            await store.watcher.poll()
            assert await store.add([(user, at(9)[0]) for user in users]) == ["stored"] * 60
            assert all([await store.read(user, 10) == at(9) for user in users])
            assert await store.popular("toys") == {"item-0": pytest.approx(60 * 2 ** (-9_000 / HALF_LIFE_MS), rel=1e-6)}
            nodes[2].kill()
            with pytest.raises(HistoriesUnavailableError):
                await store.add([(user, each) for user in users for each in at(8, 7)])
            num_read = 0
            for user in users:
                with suppress(HistoriesUnavailableError):
                    assert await store.read(user, 10) == at(9)
                    num_read += 1
            assert 20 < num_read < 60
            assert await store.erase(next(iter(await reachable(store, users)))) == 1


async def reachable(store: RedisStore, users: list[UserKey]) -> list[UserKey]:
    found = []
    for user in users:
        with suppress(HistoriesUnavailableError):
            await store.read(user, 1)
            found.append(user)
    return found


async def test_popularity_is_remembered_while_redis_is_away(own_server: RedisServer) -> None:
    clock = Clock()
    async with store_in(own_server.url, clock) as store:
        await store.add([(ANN, each) for each in at(0)])
        first = await store.popular("toys")
        own_server.kill()
        clock.now_s += HALF_LIFE_MS / 1000
        assert await store.popular("toys") == {"item-0": pytest.approx(first["item-0"] / 2)}
        with pytest.raises(HistoriesUnavailableError):
            await store.popular("words")


async def test_as_many_requests_wait_for_redis_at_once_as_the_settings_allow(own_server: RedisServer) -> None:
    async with store_in(own_server.url, Clock()) as store:
        await asyncio.gather(*(store.read(UserKey("toys", f"user-{number}"), 10) for number in range(40)))
        with own_server.client as client:
            assert len(client.client_list()) <= 4 + 1
