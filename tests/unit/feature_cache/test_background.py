"""Background tasks: none ends in silence, and those that must last go on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_cache.background import SETTLED_S, Background, Backoff, awaited
from tests.virtual_time import in_virtual_time

HOUR_S = 3600.0


class Counted(Counter[str]):
    def count_background_failure(self, task: str) -> None:
        self[task] += 1


async def forever() -> None:
    await asyncio.Event().wait()


async def sleep_until(moment: float) -> None:
    await asyncio.sleep(moment - asyncio.get_running_loop().time())


@given(st.integers(min_value=1, max_value=10**12), st.floats(1e-9, 10), st.floats(0.001, 1000))
def test_a_pause_is_within_its_bounds_after_any_number_of_failures(failures: int, base_s: float, cap_s: float) -> None:
    pause_s = Backoff(base_s, cap_s).pause_s(failures)

    assert 0 < pause_s <= cap_s
    if failures > 64:
        assert pause_s >= cap_s / 2


@in_virtual_time
async def test_a_task_that_raises_for_an_hour_is_restarted_reported_and_recovers() -> None:
    counted, starts = Counted(), 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if asyncio.get_running_loop().time() < HOUR_S:
            raise ValueError(f"bad start {starts}\nwith details")
        await forever()

    background = Background(counted)
    async with background.kept("follower", run):
        await sleep_until(HOUR_S / 2)
        during = background.problems
        await sleep_until(HOUR_S + 30 + SETTLED_S + 1)
        after = background.problems
        is_running = "follower" in background.tasks.values()

    assert during == [
        f"the background task follower has failed and is being restarted: ValueError: bad start {counted_at(during)}"
    ]
    assert after == []
    assert is_running
    assert counted["follower"] == starts - 1
    assert HOUR_S / 30 <= starts <= HOUR_S / 15 + 20  # the pauses grow to between 15 and 30 s
    assert background.problems == []
    assert not background.tasks


def counted_at(problems: list[str]) -> int:
    (problem,) = problems
    return int(problem.rpartition(" ")[2])


@in_virtual_time
async def test_a_task_that_returns_or_is_cancelled_from_within_is_restarted_too() -> None:
    counted, starts = Counted(), 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            return
        if starts == 2:
            raise asyncio.CancelledError
        await forever()

    async with Background(counted).kept("follower", run):
        await asyncio.sleep(60)

    assert starts == 3
    assert counted["follower"] == 2


@in_virtual_time
async def test_the_back_off_starts_again_after_a_task_has_settled() -> None:
    counted, started_at = Counted(), list[float]()

    async def run() -> None:
        started_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(SETTLED_S + 1 if len(started_at) % 10 == 0 else 0)
        raise OSError

    async with Background(counted).kept("follower", run):
        await sleep_until(HOUR_S)

    after_settling = [started_at[n] - started_at[n - 1] - SETTLED_S - 1 for n in range(10, len(started_at), 10)]
    assert len(after_settling) > 3
    assert max(after_settling) <= 0.1 + 1e-6


@in_virtual_time
async def test_a_task_that_may_end_returns_without_a_restart_even_while_it_waits_for_one() -> None:
    counted, may_return = Counted(), asyncio.Event()

    async def serve() -> None:
        await may_return.wait()

    async def fail() -> None:
        raise OSError

    background = Background(counted)
    async with (
        background.kept("admin_port", serve, end=may_return.set),
        background.kept("other", fail, end=lambda: None),
    ):
        await asyncio.sleep(HOUR_S)
        before = asyncio.get_running_loop().time()

    assert asyncio.get_running_loop().time() == before
    assert counted["admin_port"] == 0
    assert not background.tasks


@in_virtual_time
async def test_a_task_that_runs_once_is_reported_until_a_later_one_succeeds() -> None:
    counted = Counted()
    background = Background(counted)

    async def fail() -> None:
        raise ValueError("no such slot")

    async def succeed() -> None:
        pass

    await background.once("free_slot", fail)
    failed = background.problems
    await background.once("free_slot", succeed)

    assert failed == ["the background task free_slot failed when it last ran: ValueError: no such slot"]
    assert background.problems == []
    assert counted == {"free_slot": 1}


async def test_a_failure_is_logged_with_its_cause_and_what_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("no such slot")

    with caplog.at_level(logging.ERROR):
        await Background().once("free_slot", fail, domain="toys")

    (record,) = caplog.records
    assert (record.message, vars(record)["task"], vars(record)["domain"]) == ("background_failed", "free_slot", "toys")
    assert record.exc_info is not None
    assert "no such slot" in str(record.exc_info[1])


async def test_closing_cancels_all_tasks_without_counting_that_as_failures() -> None:
    counted = Counted()
    background = Background(counted)
    never_started = background.once("late", forever)
    await asyncio.sleep(0)
    once = background.once("shadow", forever)

    await background.aclose()

    assert once.cancelled()
    assert never_started.cancelled()
    assert not background.tasks
    assert not counted


async def test_the_error_of_a_task_that_nobody_awaits_any_more_is_not_reported() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail() -> None:
        raise ValueError

    task = awaited(fail())
    await asyncio.wait({task})
    del task
    await asyncio.sleep(0)

    assert not reported
