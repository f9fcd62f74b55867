"""Changes while workers fail, join and die: what was not made leaves nothing, and no change waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.batching.lanes import Lanes
from service.channel.channel import Channel
from service.channel.messages import Acknowledged, FromEngine, Hello, Prepare
from service.errors import JournalError
from service.http.app_state import state_of
from service.processes import worker_versions
from service.processes.hub import Hub, HubParts, WorkerLink
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


async def link_to(shop: Shop, heard: Callable[[Channel, Any], None]) -> tuple[WorkerLink, Channel]:
    """A worker that is played by the test, which hears what the engine process says."""
    state, (ours, theirs) = state_of(shop.app), socket.socketpair()
    shared, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.close()
    lanes = state.service.lanes
    assert isinstance(lanes, Lanes)
    ended: list[str] = []
    link = WorkerLink(hub_of(shop), 9, ended.append)
    await link.connect(ours, shared, HubParts(shop.app, lanes, state.service.background))
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


async def test_a_version_that_one_worker_cannot_build_is_kept_by_none(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, calls = version_at, iter([True, False])

    def fail_once(*arguments: Any) -> DomainVersion:  # noqa: ANN401
        if next(calls, False):
            raise MemoryError("of one worker")
        return build(*arguments)

    first, *_ = ids_of(await shop.ask())
    monkeypatch.setattr(worker_versions, "version_at", fail_once)
    problem = await shop.patch(500, deactivate=[first])
    assert "so nothing was changed: MemoryError: of one worker" in problem["detail"]
    await until(lambda: num_versions(shop) == [1, 1])
    await shop.patch(deactivate=[first])
    for _ in range(4):
        assert first not in ids_of(await shop.ask())
    for name in ("second", "third"):
        await shop.load(name, activate=True)
    await shop.until_slots(2)  # stable and previous: the first version's slot is not held by what was never built


async def test_a_worker_that_cannot_follow_a_published_change_is_ended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = WorkerVersions._publish, iter([True, False])
    ended: dict[int, str] = {}

    def fail_once(self: WorkerVersions, message: Any) -> None:  # noqa: ANN401
        if next(calls, False):
            raise MemoryError("of one worker")
        publish(self, message)

    monkeypatch.setattr(WorkerVersions, "_publish", fail_once)
    for link in hub_of(shop).links:

        def end(reason: str, link: WorkerLink = link) -> None:
            ended[link.number] = reason
            link.close()

        link.end = end
    transport = httpx.ASGITransport(shop.app)  # not over a worker, which may be the one that ends
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
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
