"""The watcher of Redis goes on through long outages and unreadable records, and says the truth about Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

import feature_cache.tiered
from feature_cache.background import Background
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.breakers import Breakers
from feature_cache.remote.layout import Edition, SpaceKeys
from feature_cache.remote.link import ONLY_NODE, Command, Link, Reply
from feature_cache.remote.watcher import Watcher
from feature_cache.store import FeatureSpace
from service.observability.metrics import Metrics
from service.settings.options import FeatureOptions
from service.versions.features import open_features
from tests.virtual_time import run_in_virtual_time

HOUR_S = 3600.0
REFRESH_S = 1.0
TOYS, BEAUTY = FeatureSpace("toys", "clip", 8), FeatureSpace("beauty", "clip", 8)


class FakeLink:
    """A Redis in this process that is down as long as it is told to, and holds the editions it is given."""

    num_slices = 1

    def __init__(self) -> None:
        self.is_down = False
        self.num_asked = 0
        self.records: dict[str, dict[bytes, bytes]] = {}
        self.changes: dict[str, list[tuple[bytes, dict[bytes, bytes]]]] = {}
        self.error: Exception = RedisConnectionError("refused")

    def hold(self, space: FeatureSpace) -> None:
        edition = Edition.plan(space, "v1", "float32", 4, 1)
        self.records[edition.keys.current] = {
            str(name).encode(): str(value).encode() for name, value in edition.record.items()
        }

    def node_of(self, key: str) -> str:
        return ONLY_NODE

    def read(self, keys: Sequence[str], fields: Sequence[str]) -> Coroutine[Any, Any, list[Reply]]:
        raise NotImplementedError

    async def ping(self, node: str) -> None:
        self._answer()

    async def refresh(self) -> None:
        pass  # asks nobody, as with a single server

    async def run(self, *command: str | int | bytes) -> Reply:
        self._answer()
        return 0

    async def run_all(self, commands: Iterable[Command]) -> list[Reply]:
        self._answer()
        return [
            self.records.get(str(key), {}) if name == "HGETALL" else self.changes.get(str(key), [])
            for name, key, *_ in commands
        ]

    async def close(self) -> None:
        pass

    def _answer(self) -> None:
        self.num_asked += 1
        if self.is_down:
            raise type(self.error)(*self.error.args)  # a new one: each raising adds to the traceback


def watcher_of(link: Link) -> Watcher:
    return Watcher(link, Breakers(), refresh_s=REFRESH_S, budget_s=0.1)


def redis_up(metrics: Metrics) -> float:
    lines = metrics.render().content.decode().splitlines()
    return float(next(line for line in lines if line.startswith("vip5_redis_up ")).split()[1])


def test_redis_is_used_again_after_an_outage_of_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    link, metrics = FakeLink(), Metrics()
    link.hold(TOYS)
    monkeypatch.setattr(feature_cache.tiered, "connect", lambda address: link)
    options = FeatureOptions(
        redis=RedisAddress.parse("redis://nowhere"),
        timeout_s=0.1,
        max_concurrent=4,
        refresh_s=REFRESH_S,
        tier_bytes=0,
        has_last_resort=False,
    )
    background = Background(metrics)

    async def outage() -> tuple[list[float], Sequence[str], Sequence[str]]:
        async with open_features(options, metrics, background) as features:
            assert features._tiered is not None
            await features._tiered.watch(TOYS)
            up = [redis_up(metrics)]
            link.is_down = True
            await asyncio.sleep(HOUR_S)
            during = features.problems()
            up.append(redis_up(metrics))
            asked_during = link.num_asked
            link.is_down = False
            await asyncio.sleep(2 * REFRESH_S)
            up.append(redis_up(metrics))
            assert asked_during > HOUR_S / REFRESH_S  # the pauses stay within the interval of polls
            assert asked_during < 4 * HOUR_S / REFRESH_S
            return up, during, features.problems()

    up, during, after = run_in_virtual_time(outage())

    assert up == [1, 0, 1]
    assert during == ["Redis does not answer in time"]
    assert after == []
    assert background.problems == []


async def test_a_redis_that_was_never_there_is_not_said_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    link = FakeLink()
    link.is_down = True
    watcher = watcher_of(link)

    with caplog.at_level(logging.INFO):
        await watcher.poll()  # as at the start, before any domain is known

    assert [record.message for record in caplog.records] == ["redis_lost"]
    assert not watcher.is_up
    assert watcher.problems == ["Redis does not answer in time"]


async def test_a_redis_that_answers_is_up_before_any_domain_is_watched() -> None:
    watcher = watcher_of(FakeLink())

    await watcher.poll()

    assert watcher.is_up
    assert watcher.problems == []


async def test_an_unreadable_record_of_one_domain_is_reported_and_hides_no_other() -> None:
    link = FakeLink()
    for space in (TOYS, BEAUTY):
        link.hold(space)
    watcher = watcher_of(link)
    await watcher.watch(TOYS)
    link.records[SpaceKeys(TOYS).current] = {b"version": b"\xff"}

    for _ in range(3):
        await watcher.poll()
    await watcher.watch(BEAUTY)

    assert watcher.is_up
    assert watcher.known(BEAUTY).edition is not None
    assert "cannot be read" in watcher.known(TOYS).problem
    assert watcher.problems == [watcher.known(TOYS).problem]


async def test_a_change_that_names_no_item_drops_what_is_cached_and_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = FakeLink()
    link.hold(TOYS)
    watcher = watcher_of(link)
    await watcher.watch(TOYS)
    before = watcher.known(TOYS)
    edition = before.edition
    assert edition is not None
    change = (b"1-0", {b"of a newer release": b"item-1"})
    link.changes[SpaceKeys(TOYS).changes("v1")] = [change]

    await watcher.poll()
    link.changes.clear()  # the next poll asks for later ones
    after = watcher.known(TOYS)

    assert after.token != before.token
    assert after.edition == replace(edition, revision=1)
    assert watcher.problems == []
    assert sum(record.message == "feature_changes_refused" for record in caplog.records) == 1


def test_an_error_that_is_not_redis_own_is_counted_and_polling_goes_on() -> None:
    link, metrics = FakeLink(), Metrics()
    link.is_down, link.error = True, LookupError("a fault of the client")
    background = Background(metrics)
    watcher = watcher_of(link)

    async def outage() -> list[str]:
        async with background.kept("redis_watcher", watcher.run):
            await asyncio.sleep(HOUR_S)
            problems = background.problems
            link.is_down = False
            await asyncio.sleep(60)
            assert watcher.is_up
            return problems

    problems = run_in_virtual_time(outage())

    assert problems == [
        "the background task redis_watcher has failed and is being restarted: LookupError: a fault of the client"
    ]
    assert 'vip5_background_failures_total{task="redis_watcher"} 0.0' not in metrics.render().content.decode()
