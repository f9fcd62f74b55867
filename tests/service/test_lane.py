"""A lane batches by padded tokens, drops expired jobs, rejects when full, and survives failures of its engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable

import pytest

from model.engine.protocol import Ranking
from model.errors import EngineError
from service.batching.batch_lane import BatchLane
from service.errors import DeadlineError, DrainingError, OverloadedError, QueueFullError
from service.observability.metrics import Metrics
from service.settings import QueueLimits
from tests.service.plans import TIME, Gate, GatedEngine, attribution_named, name_of, scores_named, search_named

LIMITS = QueueLimits(max_waiting=4, max_batch_rows=3, max_batch_tokens=100)
FAR = math.inf


def unexpected(lane: str, error: BaseException) -> None:
    raise AssertionError(f"the {lane} lane has failed") from error


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def lane(engine: GatedEngine) -> AsyncIterator[BatchLane]:
    lane = BatchLane(engine, LIMITS, Metrics(), unexpected)
    lane.start()
    yield lane
    engine.gate.set()
    await lane.close(30)


def _value(lane: BatchLane, name: str) -> float:
    lines = lane._metrics.render().content.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


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

    with pytest.raises(DeadlineError, match="allow a longer deadline_ms"):
        await late.result()

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


async def test_one_poisoned_request_does_not_fail_the_others_of_its_batch(lane: BatchLane, engine: GatedEngine) -> None:
    engine.poison = lambda name: name == 2
    jobs = [lane.submit(search_named(0), deadline=FAR)]
    await engine.wait_entered()
    jobs += [lane.submit(search_named(name), deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    found = await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)

    assert [name_of(each) for each in found if isinstance(each, Ranking)] == [0, 1, 3]
    failure = found[2]
    assert isinstance(failure, EngineError)
    assert str(failure.__cause__) == "poisoned: [2]"
    assert name_of(await lane.submit(search_named(4), deadline=FAR).result()) == 4


async def test_an_engine_that_loses_results_fails_the_request(lane: BatchLane, engine: GatedEngine) -> None:
    engine.loses_results = True
    engine.gate.set()

    with pytest.raises(EngineError) as failure:
        await lane.submit(search_named(0), deadline=FAR).result()

    assert str(failure.value.__cause__) == "the engine gave 0 results for 1 plans"


async def test_a_result_that_cannot_be_read_fails_its_own_request_only(lane: BatchLane, engine: GatedEngine) -> None:
    engine.unreadable = {2, 3}
    jobs = [lane.submit(search_named(0), deadline=FAR)]
    await engine.wait_entered()
    jobs += [lane.submit(search_named(name), deadline=FAR) for name in (1, 2)]
    jobs += [lane.submit(scores_named([name]), deadline=FAR) for name in (3, 4)]
    engine.gate.set()

    found = await asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)

    assert [name_of(each) for each in found if isinstance(each, Ranking)] == [0, 1, 4]
    assert all(isinstance(found[place], EngineError) for place in (2, 3))
    assert name_of(await lane.submit(search_named(5), deadline=FAR).result()) == 5


async def test_a_batch_without_memory_is_run_in_halves_and_nothing_is_lost(
    lane: BatchLane, engine: GatedEngine
) -> None:
    jobs = [lane.submit(search_named(0), deadline=FAR)]
    await engine.wait_entered()
    engine.most_rows = 1
    jobs += [lane.submit(search_named(name), deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    found = await asyncio.gather(*(job.result() for job in jobs))

    assert [name_of(ranking) for ranking in found] == [0, 1, 2, 3]
    assert engine.batches == [[0], [1, 2, 3], [1, 2], [1], [2], [3]]
    assert _value(lane, "vip5_split_batches_total") == 2


async def test_a_row_that_needs_more_memory_than_there_is_fails_alone(lane: BatchLane, engine: GatedEngine) -> None:
    engine.most_rows = 0
    engine.gate.set()

    with pytest.raises(EngineError) as failure:
        await lane.submit(search_named(1), deadline=FAR).result()

    assert isinstance(failure.value.__cause__, MemoryError)


async def test_scores_that_need_more_memory_than_there_is_are_computed_in_halves(
    lane: BatchLane, engine: GatedEngine
) -> None:
    engine.most_rows = 1
    engine.gate.set()

    ranking = await lane.submit(scores_named([7, 8, 9]), deadline=FAR).result()

    assert ranking.leaves.tolist() == [7, 8, 9]
    assert engine.batches == [[7, 8, 9], [7, 8], [7], [8], [9]]


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


async def test_a_lane_that_fails_itself_tells_and_fails_what_it_holds(engine: GatedEngine) -> None:
    crashes: list[tuple[str, BaseException]] = []
    lane = BatchLane(engine, LIMITS, Metrics(), lambda name, error: crashes.append((name, error)))
    lane.start()
    running = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    waiting = lane.submit(search_named(1), deadline=FAR)
    lane._metrics.observe_batch = broken  # type: ignore[assignment,method-assign]
    engine.gate.set()

    assert name_of(await running.result()) == 0
    with pytest.raises(EngineError, match="the ranking lane has failed"):
        await waiting.result()
    await lane.close(30)
    assert [(name, str(error)) for name, error in crashes] == [("ranking", "broken")]
    with pytest.raises(DrainingError):
        lane.submit(search_named(2), deadline=FAR)


def broken(*_: object) -> None:
    raise RuntimeError("broken")


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
