"""A lane batches by padded tokens, drops expired jobs, and rejects when full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from service.batching.batch_lane import BatchLane
from service.errors import DeadlineError, DrainingError, OverloadedError, QueueFullError
from service.observability.metrics import Metrics
from tests.service.lanes import FAR, LIMITS, unexpected
from tests.service.plans import GatedEngine, name_of, scores_named, search_named


async def test_requests_that_wait_together_run_together(lane: BatchLane, engine: GatedEngine) -> None:
    first = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    others = [lane.submit(search_named(name), deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    found = await asyncio.gather(*(job.result() for job in (first, *others)))

    assert [name_of(ranking) for ranking in found] == [0, 1, 2, 3]
    assert engine.batches == [[0], [1, 2, 3]]


async def test_requests_of_one_pass_of_the_loop_wake_the_lane_once(
    lane: BatchLane, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.gate.set()
    wake, num_wakes = lane._queue.wake, 0

    def counted() -> None:
        nonlocal num_wakes
        num_wakes += 1
        wake()

    monkeypatch.setattr(lane._queue, "wake", counted)
    jobs = [lane.submit(search_named(name), deadline=FAR) for name in (0, 1, 2)]

    found = await asyncio.gather(*(job.result() for job in jobs))

    assert [name_of(ranking) for ranking in found] == [0, 1, 2]
    assert num_wakes == 1


async def test_the_answers_of_a_batch_wake_the_loop_once(
    lane: BatchLane, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    others = [lane.submit(search_named(name), deadline=FAR) for name in (1, 2, 3)]
    loop = asyncio.get_running_loop()
    call = loop.call_soon_threadsafe
    calls: list[Callable[..., object]] = []

    def counted(callback: Callable[..., object], *arguments: object) -> asyncio.Handle:
        calls.append(callback)
        return call(callback, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    engine.gate.set()
    await asyncio.gather(*(job.result() for job in (first, *others)))

    assert engine.batches == [[0], [1, 2, 3]]
    assert len(calls) == 2


async def test_a_batch_keeps_to_the_padded_token_budget_and_to_the_order(lane: BatchLane, engine: GatedEngine) -> None:
    jobs = [lane.submit(search_named(0), deadline=FAR)]
    await engine.wait_entered()
    # Padded, 1 and 2 take 2 x 40 tokens; with 3 it would be 3 x 40. 4 would fit beside 1 and 2 but must not overtake 3.
    jobs += [lane.submit(search_named(n, size), deadline=FAR) for n, size in ((1, 40), (2, 1), (3, 40), (4, 1))]
    engine.gate.set()
    await asyncio.gather(*(job.result() for job in jobs))

    assert engine.batches == [[0], [1, 2], [3, 4]]


async def test_a_request_over_the_budget_runs_alone_and_in_parts(lane: BatchLane, engine: GatedEngine) -> None:
    engine.gate.set()

    ranking = await lane.submit(scores_named(range(5), 40), deadline=FAR).result()

    assert ranking.leaves.tolist() == [0, 1, 2, 3, 4]
    assert engine.batches == [[0, 1], [2, 3], [4]]


async def test_a_request_over_the_budget_runs_in_as_few_parts_as_fit(lane: BatchLane, engine: GatedEngine) -> None:
    engine.gate.set()

    await lane.submit(scores_named(range(14)), deadline=FAR).result()

    assert [len(batch) for batch in engine.batches] == [3, 3, 3, 3, 2]


async def test_other_requests_run_between_the_parts_of_a_long_one(lane: BatchLane, engine: GatedEngine) -> None:
    long = lane.submit(scores_named(range(5), 40), deadline=FAR)
    await engine.wait_entered()
    short = lane.submit(search_named(9), deadline=FAR)
    engine.gate.set()

    ranking, found = await asyncio.gather(long.result(), short.result())

    assert engine.batches == [[0, 1], [9], [2, 3], [4]]
    assert (ranking.leaves.tolist(), name_of(found)) == ([0, 1, 2, 3, 4], 9)


async def test_an_abandoned_request_ends_after_its_current_part(lane: BatchLane, engine: GatedEngine) -> None:
    long = lane.submit(scores_named(range(5), 40), deadline=FAR)
    await engine.wait_entered()
    long.abandon()
    other = lane.submit(search_named(9), deadline=FAR)
    engine.gate.set()
    await other.result()

    assert engine.batches == [[0, 1], [9]]


async def test_each_part_is_a_call_of_its_own_for_the_stall_clock(
    lane: BatchLane, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(lane._metrics, "observe_busy", lambda name, _: calls.append(name))
    engine.gate.set()

    await lane.submit(scores_named(range(5), 40), deadline=FAR).result()

    assert calls == ["ranking"] * 3


async def test_methods_of_the_engine_are_not_mixed_in_a_batch(lane: BatchLane, engine: GatedEngine) -> None:
    jobs = [lane.submit(search_named(0), deadline=FAR)]
    await engine.wait_entered()
    plans = (search_named(1), scores_named([2]), search_named(3))
    jobs += [lane.submit(plan, deadline=FAR) for plan in plans]
    engine.gate.set()
    await asyncio.gather(*(job.result() for job in jobs))

    assert engine.batches == [[0], [1, 3], [2]]


async def test_a_full_queue_refuses_and_says_when_to_try_again(lane: BatchLane, engine: GatedEngine) -> None:
    lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    for name in range(1, 5):
        lane.submit(search_named(name), deadline=FAR)

    with pytest.raises(QueueFullError, match="4 requests are waiting, the limit is 4") as refused:
        lane.submit(search_named(5), deadline=FAR)

    assert refused.value.retry_after_s in (1, 2)


async def test_abandoned_requests_make_room_and_are_not_run(lane: BatchLane, engine: GatedEngine) -> None:
    jobs = [lane.submit(search_named(0), deadline=FAR)]
    await engine.wait_entered()
    abandoned = [lane.submit(search_named(name), deadline=FAR) for name in range(1, 5)]
    for job in abandoned:
        waiter = asyncio.ensure_future(job.result())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    jobs.append(lane.submit(search_named(5), deadline=FAR))
    engine.gate.set()
    await asyncio.gather(*(job.result() for job in jobs))

    assert engine.batches == [[0], [5]]


async def test_a_request_whose_deadline_passes_in_the_queue_fails_and_is_not_run(
    lane: BatchLane, engine: GatedEngine
) -> None:
    first = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    late = lane.submit(search_named(1), deadline=time.monotonic() + 0.001)

    with pytest.raises(DeadlineError, match=r"within 0.001 s of queueing; allow a longer deadline_ms"):
        await late.result()
    with pytest.raises(DeadlineError, match="no answer before the deadline passed"):
        await lane.submit(search_named(3), deadline=time.monotonic() - 1).result()

    last = lane.submit(search_named(2), deadline=FAR)
    engine.gate.set()
    await asyncio.gather(first.result(), last.result())
    assert engine.batches == [[0], [2]]


async def test_a_deadline_that_passes_in_the_engine_fails_the_request_only(
    lane: BatchLane, engine: GatedEngine
) -> None:
    late = lane.submit(search_named(1), deadline=FAR)
    await engine.wait_entered()
    late.deadline = time.monotonic() + 0.01

    with pytest.raises(DeadlineError):
        await late.result()

    engine.gate.set()
    assert name_of(await lane.submit(search_named(2), deadline=FAR).result()) == 2


async def test_a_request_that_would_be_late_is_refused_at_once(lane: BatchLane, engine: GatedEngine) -> None:
    running = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    lane._forecast._times.record(1, 5.0)  # as if the last batch took that long
    in_time = lane.submit(search_named(1), deadline=time.monotonic() + 3600)

    with pytest.raises(OverloadedError, match=r"would take about .* s, the deadline is in") as refused:
        lane.submit(search_named(2), deadline=time.monotonic() + 1)

    assert 1 <= (refused.value.retry_after_s or 0) <= 60
    assert lane.num_waiting == 1
    engine.gate.set()
    await asyncio.gather(running.result(), in_time.result())


async def test_others_can_wait_for_the_batch_that_runs_but_not_for_ever(lane: BatchLane, engine: GatedEngine) -> None:
    lane.wait_idle(3600)
    job = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    lane.wait_idle(0.001)
    waiting = asyncio.create_task(asyncio.to_thread(lane.wait_idle, 3600))
    await asyncio.sleep(0)

    assert not waiting.done()
    engine.gate.set()
    await job.result()
    await waiting


async def test_a_lane_tells_how_long_its_engine_has_been_away(lane: BatchLane, engine: GatedEngine) -> None:
    assert lane.busy_s == 0
    job = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    before = lane.busy_s

    assert 0 < before <= lane.busy_s
    engine.gate.set()
    await job.result()


async def test_closing_fails_what_waits_and_refuses_what_comes(engine: GatedEngine) -> None:
    lane = BatchLane(engine, LIMITS, Metrics(), unexpected)
    lane.start()
    running = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    waiting = lane.submit(search_named(1), deadline=FAR)
    closing = asyncio.ensure_future(lane.close(30))

    with pytest.raises(DrainingError):
        await waiting.result()
    with pytest.raises(DrainingError):
        lane.submit(search_named(2), deadline=FAR)
    engine.gate.set()
    assert name_of(await running.result()) == 0
    await closing
