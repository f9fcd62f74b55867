"""Changes while workers fail, join and die: what was not made leaves nothing, and no change waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.batching.lanes import Lanes
from service.channel.channel import Channel
from service.channel.messages import (
    Acknowledged,
    Discard,
    Forgotten,
    FromEngine,
    Hello,
    Prepare,
    Publish,
    Ready,
    Settled,
)
from service.errors import JournalError
from service.http.app_state import state_of
from service.processes import worker_versions
from service.processes.engine_calls import HubParts
from service.processes.hub import Hub, WorkerLink
from service.processes.worker_versions import WorkerVersions
from service.versions.building import version_at
from service.versions.domain_version import DomainVersion
from tests.service.live import Shop, bundle_of, ids_of, live_settings, shop_of

pytestmark = pytest.mark.parametrize("num_workers", [2], indirect=True)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    for seed, name in enumerate(("first", "second", "third"), start=1):
        bundle_of(folder / name, seed)
    return folder


@pytest.fixture
async def shop(bundles: Path, tmp_path: Path, num_workers: int) -> AsyncIterator[Shop]:  # sets the number
    async with shop_of(live_settings(bundles, admin_wait_s=5, journal=str(tmp_path / "journal"))) as shop:
        yield shop


def hub_of(shop: Shop) -> Hub:
    hub = state_of(shop.app).followers
    assert isinstance(hub, Hub)
    return hub


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  # what another end of a socket does
            await asyncio.sleep(0.001)


def num_versions(shop: Shop) -> list[int]:
    """Versions that each worker has."""
    return [len(link.versions) for link in hub_of(shop).links]


async def link_to(shop: Shop, heard: Callable[[Channel, Any], None], number: int = 9) -> tuple[WorkerLink, Channel]:
    """A worker that is played by the test, which hears what the engine process says."""
    state, (ours, theirs) = state_of(shop.app), socket.socketpair()
    shared, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.close()
    lanes = state.service.lanes
    assert isinstance(lanes, Lanes)
    ended: list[str] = []
    link = WorkerLink(hub_of(shop), number, ended.append)
    await link.connect(ours, shared, HubParts(shop.app, lanes, state.service.background, None))
    channel: Channel = await Channel.over(theirs, FromEngine, lambda message: heard(channel, message), lambda: None)
    return link, channel


async def test_a_version_is_forgotten_by_all_if_the_journal_fails(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise JournalError("the disk is full")

    before = await shop.ask()
    with monkeypatch.context() as patched:
        patched.setattr(type(state_of(shop.app).service.changes.replica.journal), "append", fail)  # type: ignore[union-attr]
        assert (await shop.load("second", 503, activate=True))["code"] == JournalError.code
        assert (await shop.patch(503, deactivate=["item-1"]))["code"] == JournalError.code
    await until(lambda: num_versions(shop) == [1, 1])
    await shop.until_slots(1)
    assert (await shop.ask())["items"] == before["items"]


def let_end(shop: Shop, succeed: Callable[[int], None] = lambda _: None) -> dict[int, str]:
    """Let workers be ended, and `succeed` start another one; the reasons, by worker."""
    ended: dict[int, str] = {}
    for link in hub_of(shop).links:

        def end(reason: str, link: WorkerLink = link) -> None:
            ended[link.number] = reason
            link.close()
            succeed(link.number)

        link.end = end
    return ended


def unable(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the workers cannot build the next version."""
    build, calls = version_at, iter([True])

    def fail_once(*arguments: Any) -> DomainVersion:  # noqa: ANN401
        if next(calls, False):
            raise MemoryError("of one worker")
        return build(*arguments)

    monkeypatch.setattr(worker_versions, "version_at", fail_once)


@asynccontextmanager
async def with_successors(shop: Shop, answer: Callable[[Prepare], str | None]) -> AsyncIterator[dict[int, str]]:
    """A worker that is ended has a successor, which answers to what it is asked to build; the reasons of ends."""
    joining: list[asyncio.Task[None]] = []
    channels: list[Channel] = []
    published: set[int] = set()

    def heard(channel: Channel, message: Any) -> None:  # noqa: ANN401
        if isinstance(message, Prepare):
            channel.send(Acknowledged(message.number, answer(message)))
        elif isinstance(message, Publish):
            for superseded in published - {*message.versions}:
                channel.send(Settled(superseded))
                channel.send(Forgotten(superseded))
            published.clear()
            published.update(message.versions)
            channel.send(Acknowledged(message.number))
        elif isinstance(message, Ready):
            channel.send(Acknowledged(message.number))
        elif isinstance(message, Discard):
            channel.send(Forgotten(message.version))

    async def join(number: int) -> None:
        link, channel = await link_to(shop, heard, number)
        channels.append(channel)
        await hub_of(shop).join(link)

    yield let_end(shop, lambda number: joining.append(asyncio.create_task(join(number))))
    await asyncio.gather(*joining)
    for channel in channels:
        channel.close()
    await until(lambda: len(hub_of(shop).links) == 1)


def directly(shop: Shop) -> httpx.AsyncClient:
    """A client of the engine process, not of a worker, which may be the one that ends."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(shop.app), base_url="http://test")


async def test_a_worker_that_cannot_build_a_version_is_replaced_and_the_change_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = ids_of(await shop.ask())
    unable(monkeypatch)
    async with directly(shop) as client, with_successors(shop, lambda _: None) as ended:
        await Shop(shop.app, client).patch(deactivate=[first])
        assert [*ended.values()] == ["it could not build a version of 'toys': MemoryError: of one worker"]
        assert sorted(link.number for link in hub_of(shop).links) == [0, 1]
        assert first not in ids_of(await Shop(shop.app, client).ask())


async def test_a_change_that_a_worker_and_its_successor_cannot_build_is_refused_and_kept_by_none(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Prepare] = []

    def answer(message: Prepare) -> str | None:
        asked.append(message)
        return None if len(asked) == 1 else "MemoryError: of its successor"

    unable(monkeypatch)
    async with directly(shop) as client, with_successors(shop, answer) as ended:
        problem = await Shop(shop.app, client).patch(500, deactivate=["item-1"])
        (number,) = ended
        assert problem["detail"] == (
            f"worker {number} could not build a version of 'toys', nor could its successor, so nothing was changed: "
            "MemoryError: of its successor"
        )
        await until(lambda: num_versions(shop) == [1, 1])
        assert Shop(shop.app, client).revision() == 0


async def test_a_change_is_refused_if_nobody_takes_the_place_of_a_worker_that_cannot_build_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_of(shop)._replace_s = 0.01
    unable(monkeypatch)
    let_end(shop)
    async with directly(shop) as client:
        problem = await Shop(shop.app, client).patch(500, deactivate=["item-1"])
    assert problem["detail"].endswith("MemoryError: of one worker; no worker took its place within 0.01 s")


async def test_a_worker_that_dies_while_it_builds_does_not_make_the_change_fail(shop: Shop) -> None:
    def die(channel: Channel, message: Any) -> None:  # noqa: ANN401
        if isinstance(message, Prepare) and message.version > 1:
            channel.close()
        elif isinstance(message, Prepare | Publish | Ready):
            channel.send(Acknowledged(message.number))

    link, _ = await link_to(shop, die)
    await hub_of(shop).join(link)
    assert link.is_answering
    await shop.load("second", activate=True)
    assert link.is_lost.is_set()


async def test_a_worker_that_cannot_follow_a_published_change_is_ended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = WorkerVersions._publish, iter([True, False])

    def fail_once(self: WorkerVersions, message: Any) -> None:  # noqa: ANN401
        if next(calls, False):
            raise MemoryError("of one worker")
        publish(self, message)

    monkeypatch.setattr(WorkerVersions, "_publish", fail_once)
    ended = let_end(shop)
    async with directly(shop) as client:
        await Shop(shop.app, client).patch(deactivate=["item-1"])
    assert list(ended.values()) == ["it could not follow a change: MemoryError: of one worker"]
    assert not {link.number for link in hub_of(shop).links} & set(ended)


async def test_a_worker_that_dies_before_it_joins_holds_nothing(shop: Shop) -> None:
    link, channel = await link_to(shop, lambda *_: None)
    channel.close()
    await link.is_lost.wait()
    await hub_of(shop).join(link)
    assert link not in hub_of(shop).links
    for number in range(1, 4):
        await shop.patch(deactivate=[f"item-{number}"])


async def test_changes_do_not_wait_for_a_worker_that_joins(shop: Shop) -> None:
    told: list[Any] = []
    link, channel = await link_to(shop, lambda _, message: told.append(message))
    channel.send(Hello(1))
    await link.is_greeted.wait()
    joining = asyncio.create_task(hub_of(shop).join(link))
    await until(lambda: len(told) > 1)
    for number in range(1, 4):
        await shop.patch(deactivate=[f"item-{number}"])
    await shop.load("second", activate=True)

    def num_prepared() -> int:
        return sum(isinstance(each, Prepare) for each in told)

    await until(lambda: num_prepared() == 1 + 4)
    assert not joining.done()
    for message in told:
        channel.send(Acknowledged(message.number))
    await joining
    assert link.is_answering
    channel.close()
    await link.is_lost.wait()


async def test_a_worker_that_cannot_follow_while_it_joins_does_not_listen(shop: Shop) -> None:
    def refuse(channel: Channel, message: Any) -> None:  # noqa: ANN401
        channel.send(Acknowledged(message.number, "UnknownBundleError: it has another hash"))

    link, channel = await link_to(shop, refuse)
    with pytest.raises(Exception, match="cannot serve what this process serves: UnknownBundleError: it has another"):
        await hub_of(shop).join(link)
    assert not link.is_answering
    assert link.versions == []
    channel.close()
    await link.is_lost.wait()


@asynccontextmanager
async def with_deaf_worker(shop: Shop) -> AsyncIterator[tuple[WorkerLink, Channel, list[Ready]]]:
    """A further worker, which does not acknowledge whether it is to accept requests; what it was told of that."""
    told: list[Ready] = []

    def heard(channel: Channel, message: Any) -> None:  # noqa: ANN401
        if isinstance(message, Ready) and link.is_answering:
            told.append(message)
        elif isinstance(message, Prepare | Publish | Ready):
            channel.send(Acknowledged(message.number))

    link, channel = await link_to(shop, heard)
    await hub_of(shop).join(link)
    yield link, channel, told
    channel.close()
    await link.is_lost.wait()


async def test_drain_is_answered_once_all_workers_refuse(shop: Shop) -> None:
    async with with_deaf_worker(shop) as (_, channel, told), directly(shop) as client:
        draining = asyncio.create_task(Shop(shop.app, client).admin("POST", "/drain"))
        await until(lambda: len(told) == 1)
        for _ in range(20):  # time enough for whoever would not wait
            await client.get("/health/live")
        assert told[0].is_draining
        assert not draining.done()
        channel.send(Acknowledged(told[0].number))
        await draining


async def test_a_worker_that_does_not_follow_a_drain_is_ended_before_it_is_answered(shop: Shop) -> None:
    hub_of(shop)._acknowledge_s = 0.01
    async with with_deaf_worker(shop) as (link, _, _), directly(shop) as client:
        ended = let_end(shop)
        await Shop(shop.app, client).admin("POST", "/drain")
        assert ended[link.number] == "it did not acknowledge a change within 0.01 s"


async def test_the_service_is_ready_once_all_workers_know_it(shop: Shop) -> None:
    readiness = state_of(shop.app).readiness
    async with with_deaf_worker(shop) as (link, channel, told), directly(shop) as client:
        readiness.await_domains(["toys"])
        readiness.mark_ready("toys")
        await until(lambda: len(told) == 2)
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["reasons"] == [f"worker {link.number} has not been told yet"]
        for each in told:
            channel.send(Acknowledged(each.number))
        await until(lambda: not readiness.reasons())
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_worker_that_starts_during_a_drain_refuses(shop: Shop) -> None:
    heard: list[Ready] = []

    def note(channel: Channel, message: Any) -> None:  # noqa: ANN401
        if isinstance(message, Ready):
            heard.append(message)
        channel.send(Acknowledged(message.number))

    state_of(shop.app).readiness.drain()
    link, channel = await link_to(shop, note)
    await hub_of(shop).join(link)
    assert [(dict(each.waiting_for), each.is_draining) for each in heard] == [({}, True)]
    channel.close()
    await link.is_lost.wait()
