"""Attributions give way to rankings and run in parts."""

from __future__ import annotations

import asyncio

import pytest

from service.batching.batch_lane import BatchLane
from service.errors import QueueFullError
from service.observability.metrics import Metrics
from service.settings.options import QueueLimits
from tests.service.lanes import FAR, LIMITS, unexpected
from tests.service.plans import GatedEngine, attribution_named, name_of, scores_named, search_named


async def test_attributions_wait_behind_rankings_that_come_later_and_run_in_parts(
    lane: BatchLane, engine: GatedEngine
) -> None:
    first = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    patient = lane.submit(attribution_named((1, 2, 3, 4), 5), deadline=FAR)
    later = [lane.submit(search_named(name), deadline=FAR) for name in (5, 6)]
    engine.gate.set()
    log_probs = await patient.result()
    await asyncio.gather(*(job.result() for job in (first, *later)))

    assert engine.batches == [[0], [5, 6], [1, 2], [3, 4]]
    assert log_probs == ((0.0, 0.0),) * 4


async def test_rankings_run_between_the_parts_of_an_attribution(lane: BatchLane, engine: GatedEngine) -> None:
    patient = lane.submit(attribution_named((1, 2, 3, 4), 5), deadline=FAR)
    await engine.wait_entered()
    later = lane.submit(search_named(5), deadline=FAR)
    engine.gate.set()
    await asyncio.gather(patient.result(), later.result())

    assert engine.batches == [[1, 2], [5], [3, 4]]


async def test_attributions_that_run_together_are_no_more_than_a_part_of_one(
    lane: BatchLane, engine: GatedEngine
) -> None:
    first = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    patient = [lane.submit(attribution_named((name,), 5), deadline=FAR) for name in (1, 2, 3, 4)]
    engine.gate.set()
    await asyncio.gather(*(job.result() for job in (first, *patient)))

    assert engine.batches == [[0], [1, 2], [3, 4]]


async def test_a_part_of_an_attribution_is_as_large_as_the_time_that_it_may_take(
    engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = QueueLimits(max_waiting=9, max_batch_rows=99, max_batch_tokens=9_999, attribution_part_s=0.5)
    lane = BatchLane(engine, limits, Metrics(), unexpected)
    sizes = {0.5: 5 * 7.0}  # five prompts of 5 tokens, which decode 2 more
    monkeypatch.setattr(lane._forecast, "patient_size", sizes.__getitem__)
    lane.start()
    engine.gate.set()
    for names in (range(10), (10,)):
        await lane.submit(attribution_named(names, 5), deadline=FAR).result()
    sizes[0.5] = 1.0  # some prompts run whatever they take
    await lane.submit(attribution_named(range(11, 17), 5), deadline=FAR).result()
    await lane.close(30)

    assert engine.batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10], [11, 12, 13], [14, 15, 16]]


async def test_a_prompt_beyond_the_budget_is_scored_alone(engine: GatedEngine) -> None:
    lane = BatchLane(engine, LIMITS, Metrics(), unexpected)
    lane.start()
    engine.gate.set()
    await lane.submit(scores_named((1, 2), 101), deadline=FAR).result()
    await lane.close(30)

    assert engine.batches == [[1], [2]]


async def test_a_full_queue_gives_up_an_attribution_for_a_ranking(lane: BatchLane, engine: GatedEngine) -> None:
    first = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    patient = [lane.submit(attribution_named((name,)), deadline=FAR) for name in range(1, LIMITS.max_waiting + 1)]
    with pytest.raises(QueueFullError):
        lane.submit(attribution_named((9,)), deadline=FAR)
    later = [lane.submit(search_named(name), deadline=FAR) for name in range(11, LIMITS.max_waiting + 11)]
    with pytest.raises(QueueFullError):
        lane.submit(search_named(99), deadline=FAR)
    engine.gate.set()

    for job in patient:
        with pytest.raises(QueueFullError, match="others go first"):
            await job.result()
    assert [name_of(await job.result()) for job in (first, *later)] == [0, 11, 12, 13, 14]


async def test_waiting_attributions_do_not_make_the_service_look_busy(lane: BatchLane, engine: GatedEngine) -> None:
    await _measured(lane, engine)
    engine.gate.clear()
    lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    before = lane.completion_s()
    for _ in range(3):
        lane.submit(attribution_named((1, 2, 3)), deadline=FAR)

    assert lane.completion_s() == pytest.approx(before, abs=0.05)


async def _measured(lane: BatchLane, engine: GatedEngine) -> None:
    """Let the lane learn from one batch."""
    job = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    engine.gate.set()
    await job.result()
