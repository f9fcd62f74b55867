"""While descriptors are short, connections give way in order, and the shortage is told for as long as it lasts."""

from __future__ import annotations

import asyncio
import errno
import logging
import os

import pytest

from feature_cache.background import Background
from service.http.descriptors import REPORT_S, WATCH_S, Descriptors, loop_error_handler
from service.observability.metrics import Metrics
from tests.virtual_time import in_virtual_time, run_in_virtual_time

LIMIT = 80  # of which 10 are the reserve


def num_open() -> int:
    """The number that the next descriptor of this process gets; other tests may have left some open."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


class FakeConnection:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def counts(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render().content.decode().splitlines()
    samples = [line.split() for line in lines if line.startswith("vip5_descriptor_shortages_total{")]
    return {name.split('"')[1]: float(value) for name, value in samples}


@in_virtual_time
async def test_the_longest_idle_connection_gives_way_and_a_busy_one_never() -> None:
    metrics = Metrics()
    descriptors = Descriptors(LIMIT, metrics)
    busy, idle, later, new = (FakeConnection() for _ in range(4))
    for number, connection in enumerate((busy, idle, later), start=60):
        assert descriptors.admit(connection, number)
        await asyncio.sleep(1)
    descriptors.note_busy(busy)

    assert descriptors.admit(new, 70)
    assert [each.is_closed for each in (busy, idle, later, new)] == [False, True, False, False]
    assert counts(metrics) == {"idle_closed": 1, "refused": 0, "exhausted": 0}


@in_virtual_time
async def test_without_an_idle_connection_new_ones_are_for_probes_and_give_way_to_each_other() -> None:
    metrics = Metrics()
    descriptors = Descriptors(LIMIT, metrics)
    first, second, third = (FakeConnection() for _ in range(3))

    assert [descriptors.admit(first, 69), descriptors.admit(second, 70)] == [True, False]
    assert not descriptors.admit(third, 75)  # half of the reserve is in use
    assert [each.is_closed for each in (first, second, third)] == [False, True, False]
    assert counts(metrics) == {"idle_closed": 0, "refused": 1, "exhausted": 0}
    descriptors.note_closed(third)
    assert not descriptors.admit(FakeConnection(), 75)
    assert not third.is_closed


@in_virtual_time
async def test_a_shortage_is_told_until_it_has_been_over_for_a_while() -> None:
    descriptors = Descriptors(LIMIT, Metrics())
    descriptors.admit(FakeConnection(), 69)
    before = descriptors.problems
    descriptors.admit(FakeConnection(), 72)
    during = descriptors.problems
    await asyncio.sleep(REPORT_S + 1)

    assert before == []
    assert len(during) == 1
    assert "72 of 80 are in use" in during[0]
    assert descriptors.problems == []


def test_files_that_take_all_descriptors_are_noticed_counted_and_logged_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def shortage() -> tuple[list[str], list[str]]:
        descriptors = Descriptors(num_open() + LIMIT, metrics)
        async with Background(metrics).kept("descriptors", descriptors.watch):
            await asyncio.sleep(WATCH_S)
            with monkeypatch.context() as patched:
                patched.setattr(os, "open", fail)
                await asyncio.sleep(60 * WATCH_S)
                during = descriptors.problems
            await asyncio.sleep(REPORT_S + 2 * WATCH_S)
            return during, descriptors.problems

    during, after = run_in_virtual_time(shortage())

    assert during
    assert after == []
    assert 59 <= counts(metrics)["exhausted"] <= 61
    lines = [vars(record) for record in caplog.records if record.message == "descriptors_short"]
    assert 6 <= len(lines) <= 7
    assert lines[1]["exhausted"] >= 9
    assert 'vip5_background_failures_total{task="descriptors"} 0.0' in metrics.render().content.decode()


async def test_errors_of_the_event_loop_are_told_apart_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    handle = loop_error_handler(Descriptors(LIMIT, metrics), metrics)
    loop = asyncio.get_running_loop()

    with caplog.at_level(logging.ERROR):
        handle(loop, {"message": "accept failed", "exception": OSError(errno.EMFILE, os.strerror(errno.EMFILE))})
        handle(loop, {"message": "a callback failed", "exception": ValueError("no such leaf")})

    assert counts(metrics)["exhausted"] == 1
    assert 'vip5_background_failures_total{task="event_loop"} 1.0' in metrics.render().content.decode()
    assert any("a callback failed" in record.message for record in caplog.records)
