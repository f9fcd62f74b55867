"""When a replica counts as in touch with the others: not before it has read what was changed while it was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.settings.options import ReplicaOptions
from service.versions import membership as module
from service.versions.membership import RedisMembership
from service.versions.replica import Replica

LEASE_S = 10.0


@dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@dataclass
class FakeLink:
    """Answers each command after some time, or not at all."""

    clock: Clock
    takes_s: float = 0.0
    is_down: bool = False
    commands: list[Sequence[Any]] = field(default_factory=list)

    async def run(self, *command: str | int | bytes) -> int:
        self.clock.now += self.takes_s
        if self.is_down:
            raise ConnectionRefusedError("down")
        self.commands.append(command)
        return 1


@dataclass
class FakeProgress:
    applied_at: float
    behind_s: float = 0.0
    is_applying: bool = False
    faults: dict[str, str] = field(default_factory=dict)
    has_news: Any = field(default_factory=lambda: SimpleNamespace(clear=lambda: None))

    def revisions(self) -> dict[str, int]:
        return {"toys": 1}


class Trial:
    """A replica at a time that the test sets."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.link = FakeLink(clock)
        self.progress = FakeProgress(clock.now)
        journal = SimpleNamespace(lacking=(), is_broken=False, history="history", revisions={}, problems=[])
        replica = cast("Replica", SimpleNamespace(progress=self.progress, journal=journal))
        self.membership = RedisMembership(self.link, "shop", replica, ReplicaOptions("one", LEASE_S, None))  # type: ignore[arg-type]

    async def beat(self) -> bool:
        return await self.membership._beat()

    def read(self) -> None:
        """All that the journal holds now is applied."""
        self.progress.applied_at = self.clock.now


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return Trial(clock)


async def in_touch(trial: Trial) -> None:
    await trial.beat()
    trial.read()
    assert trial.membership.silence_s == 0.0


async def test_a_replica_is_in_touch_when_it_has_registered_and_then_read_the_journal(trial: Trial) -> None:
    trial.clock.now += 3.0
    await trial.beat()
    assert trial.membership.silence_s == 3.0, "it has read the journal before it registered only"
    trial.read()
    assert trial.membership.silence_s == 0.0


async def test_between_heartbeats_in_time_nothing_has_to_be_read(trial: Trial) -> None:
    await in_touch(trial)
    for _ in range(5):
        trial.clock.now += 0.9 * LEASE_S
        await trial.beat()
        assert trial.membership.silence_s == 0.0


async def test_a_replica_that_was_suspended_is_not_in_touch_before_it_has_caught_up(trial: Trial) -> None:
    await in_touch(trial)
    trial.clock.now += 40.0
    assert trial.membership.silence_s == 40.0, "for the first request that it sees then"
    trial.read()  # of what came while it was suspended; more may come before it has registered again
    trial.clock.now += 1.0
    await trial.beat()
    trial.clock.now += 1.0
    assert trial.membership.silence_s == 42.0
    trial.read()
    assert trial.membership.silence_s == 1.0


async def test_an_answer_that_comes_after_the_end_of_the_lease_does_not_count_as_in_time(trial: Trial) -> None:
    await in_touch(trial)
    trial.clock.now += 0.9 * LEASE_S
    trial.link.takes_s = 0.2 * LEASE_S
    await trial.beat()
    assert trial.membership.silence_s == pytest.approx(1.1 * LEASE_S)
    trial.read()
    assert trial.membership.silence_s == pytest.approx(0.2 * LEASE_S), "since the heartbeat was sent"


async def test_while_redis_is_gone_the_silence_grows_and_is_reported(trial: Trial) -> None:
    await in_touch(trial)
    trial.link.is_down = True
    trial.clock.now += 5.0
    assert not await trial.beat()
    assert trial.membership.silence_s == 5.0
    assert "cannot say in Redis what it serves" in trial.membership.problems[0]
    trial.link.is_down = False
    assert await trial.beat()
    assert (trial.membership.silence_s, trial.membership.problems) == (0.0, [])
