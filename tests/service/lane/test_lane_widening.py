"""Certified searches are widened as requests of their own, behind what came meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.batching.batch_lane import BatchLane
from service.errors import DrainingError
from service.observability.metrics import Metrics
from tests.service.lanes import FAR, LIMITS, unexpected
from tests.service.plans import TIME, Gate, GatedEngine, name_of, search_named


async def test_a_wider_search_waits_behind_what_came_meanwhile_even_where_the_queue_is_full(
    lane: BatchLane, engine: GatedEngine
) -> None:
    engine.wider = {0: 5, 5: 6}
    jobs = [lane.submit(search_named(0, 100), deadline=FAR)]
    await engine.wait_entered()
    jobs += [lane.submit(search_named(name, 100), deadline=FAR) for name in range(1, 5)]
    engine.gate.set()
    found = await asyncio.gather(*(job.result() for job in jobs))

    assert [name_of(ranking) for ranking in found] == [6, 1, 2, 3, 4]
    assert engine.batches == [[0], [1], [2], [3], [4], [5], [6]]


async def test_the_times_of_wider_searches_add_up(lane: BatchLane, engine: GatedEngine) -> None:
    engine.wider = {0: 1, 1: 2}
    engine.gate.set()
    job = lane.submit(search_named(0), deadline=FAR)
    await job.result()

    assert (job.timings.encode_s, job.timings.decode_s) == (3 * TIME.encode_s, 3 * TIME.decode_s)
    assert 0 < job.queue_s < time.monotonic() - job.submitted_at
    assert (lane.num_waiting, lane.num_running) == (0, 0)


async def test_whoever_waits_for_a_search_to_end_does_not_wait_for_wider_ones(
    lane: BatchLane, engine: GatedEngine
) -> None:
    engine.wider = {0: 1}
    wider = Gate()

    def held(name: int) -> bool:
        if name == 1:
            wider.pass_through()
        return False

    engine.poison = held
    job = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    first = lane.running
    engine.gate.set()
    await wider.wait_entered()

    assert len(first) == len(lane.running) == 1
    assert not first & lane.running
    wider.gate.set()
    assert name_of(await job.result()) == 1


async def test_a_search_that_nobody_waits_for_is_not_widened(lane: BatchLane, engine: GatedEngine) -> None:
    engine.wider = {0: 1}
    left = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    left.abandon()
    last = lane.submit(search_named(2), deadline=FAR)
    engine.gate.set()
    await last.result()

    assert engine.batches == [[0], [2]]


async def test_a_search_that_is_to_be_widened_when_the_lane_closes_fails(engine: GatedEngine) -> None:
    engine.wider = {0: 1}
    lane = BatchLane(engine, LIMITS, Metrics(), unexpected)
    lane.start()
    job = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    lane._queue.close()
    engine.gate.set()

    with pytest.raises(DrainingError):
        await job.result()
    await lane.close(30)
