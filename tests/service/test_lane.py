"""A lane batches by padded tokens, drops the dead, refuses when full, and survives its engine's failures."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from model.engine.protocol import TextWork, Timings
from model.errors import EngineError
from service.batching.batch_lane import BatchLane
from service.batching.job import Outcome
from service.errors import DeadlineError, DrainingError, OverloadedError, QueueFullError
from service.observability.metrics import Metrics
from service.settings import QueueLimits
from tests.service.works import NO_TIME, GatedEngine, work

LIMITS = QueueLimits(max_waiting=4, max_batch_rows=3, max_batch_tokens=100)
FAR = math.inf


def unexpected(lane: str, error: BaseException) -> None:
    raise AssertionError(f"the {lane} lane has failed") from error


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def lane(engine: GatedEngine) -> AsyncIterator[BatchLane]:
    lane = BatchLane(LIMITS, Metrics(), unexpected)
    lane.start()
    yield lane
    engine.gate.set()
    await lane.close(30)


def _value(lane: BatchLane, name: str) -> float:
    lines = lane._metrics.render().content.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def names(outcomes: Sequence[Outcome[int]]) -> list[tuple[int, ...]]:
    return [outcome.results for outcome in outcomes]


async def test_requests_that_wait_together_run_together(lane: BatchLane, engine: GatedEngine) -> None:
    call = engine.run
    first = lane.submit(call, [work(0)], deadline=FAR)
    await engine.wait_entered()
    others = [lane.submit(call, [work(name)], deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    outcomes = await asyncio.gather(*(job.outcome() for job in (first, *others)))

    assert names(outcomes) == [(0,), (1,), (2,), (3,)]
    assert engine.batches == [[0], [1, 2, 3]]


async def test_a_batch_keeps_to_the_padded_token_budget_and_to_the_order(lane: BatchLane, engine: GatedEngine) -> None:
    call = engine.run
    jobs = [lane.submit(call, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    # Padded, 1 and 2 take 2 x 40 tokens; with 3 it would be 3 x 40. 4 would fit beside 1 and 2 but must not overtake 3.
    jobs += [lane.submit(call, [work(n, size)], deadline=FAR) for n, size in ((1, 40), (2, 1), (3, 40), (4, 1))]
    engine.gate.set()
    await asyncio.gather(*(job.outcome() for job in jobs))

    assert engine.batches == [[0], [1, 2], [3, 4]]


async def test_a_request_over_the_budget_runs_alone_and_in_parts(lane: BatchLane, engine: GatedEngine) -> None:
    engine.gate.set()

    outcome = await lane.submit(engine.run, [work(n, 40) for n in range(5)], deadline=FAR).outcome()

    assert outcome.results == (0, 1, 2, 3, 4)
    assert engine.batches == [[0, 1], [2, 3], [4]]


async def test_methods_of_the_engine_are_not_mixed_in_a_batch(lane: BatchLane, engine: GatedEngine) -> None:
    other = GatedEngine()
    other.gate.set()
    call, other_call = engine.run, other.run
    jobs = [lane.submit(call, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    jobs += [lane.submit(each, [work(n)], deadline=FAR) for n, each in ((1, call), (2, other_call), (3, call))]
    engine.gate.set()
    await asyncio.gather(*(job.outcome() for job in jobs))

    assert engine.batches == [[0], [1, 3]]
    assert other.batches == [[2]]


async def test_a_full_queue_refuses_and_says_when_to_try_again(lane: BatchLane, engine: GatedEngine) -> None:
    lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    for name in range(1, 5):
        lane.submit(engine.run, [work(name)], deadline=FAR)

    with pytest.raises(QueueFullError, match="4 requests are waiting, the limit is 4") as refused:
        lane.submit(engine.run, [work(5)], deadline=FAR)

    assert refused.value.retry_after_s in (1, 2)


async def test_abandoned_requests_make_room_and_are_not_run(lane: BatchLane, engine: GatedEngine) -> None:
    call = engine.run
    jobs = [lane.submit(call, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    abandoned = [lane.submit(call, [work(name)], deadline=FAR) for name in range(1, 5)]
    for job in abandoned:
        waiter = asyncio.ensure_future(job.outcome())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    jobs.append(lane.submit(call, [work(5)], deadline=FAR))
    engine.gate.set()
    await asyncio.gather(*(job.outcome() for job in jobs))

    assert engine.batches == [[0], [5]]


async def test_a_request_whose_deadline_passes_in_the_queue_fails_and_is_not_run(
    lane: BatchLane, engine: GatedEngine
) -> None:
    call = engine.run
    first = lane.submit(call, [work(0)], deadline=FAR)
    await engine.wait_entered()
    late = lane.submit(call, [work(1)], deadline=time.monotonic() + 0.001)

    with pytest.raises(DeadlineError, match="allow a longer deadline_ms"):
        await late.outcome()

    last = lane.submit(call, [work(2)], deadline=FAR)
    engine.gate.set()
    await asyncio.gather(first.outcome(), last.outcome())
    assert engine.batches == [[0], [2]]


async def test_a_deadline_that_passes_in_the_engine_fails_the_request_only(
    lane: BatchLane, engine: GatedEngine
) -> None:
    call = engine.run
    late = lane.submit(call, [work(1)], deadline=time.monotonic() + 0.01)
    await engine.wait_entered()

    with pytest.raises(DeadlineError):
        await late.outcome()

    engine.gate.set()
    assert (await lane.submit(call, [work(2)], deadline=FAR).outcome()).results == (2,)


async def test_one_poisoned_request_does_not_fail_the_others_of_its_batch(lane: BatchLane, engine: GatedEngine) -> None:
    engine.poison = lambda name: name == 2
    call = engine.run
    jobs = [lane.submit(call, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    jobs += [lane.submit(call, [work(name)], deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    outcomes = await asyncio.gather(*(job.outcome() for job in jobs), return_exceptions=True)

    assert [outcome.results for outcome in outcomes if isinstance(outcome, Outcome)] == [(0,), (1,), (3,)]
    failure = outcomes[2]
    assert isinstance(failure, EngineError)
    assert str(failure.__cause__) == "poisoned: [2]"
    assert (await lane.submit(call, [work(4)], deadline=FAR).outcome()).results == (4,)


async def test_an_engine_that_loses_rows_fails_the_request(lane: BatchLane) -> None:
    def forgetful(rows: Sequence[TextWork]) -> tuple[list[int], Timings]:
        return [], NO_TIME

    with pytest.raises(EngineError) as failure:
        await lane.submit(forgetful, [work(0)], deadline=FAR).outcome()

    assert str(failure.value.__cause__) == "the engine gave 0 results for 1 rows"


async def test_a_batch_without_memory_is_run_in_halves_and_nothing_is_lost(
    lane: BatchLane, engine: GatedEngine
) -> None:
    jobs = [lane.submit(engine.run, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    engine.most_rows = 1
    jobs += [lane.submit(engine.run, [work(name)], deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    outcomes = await asyncio.gather(*(job.outcome() for job in jobs))

    assert names(outcomes) == [(0,), (1,), (2,), (3,)]
    assert engine.batches == [[0], [1, 2, 3], [1, 2], [1], [2], [3]]
    assert _value(lane, "vip5_split_batches_total") == 2


async def test_a_row_that_needs_more_memory_than_there_is_fails_alone(lane: BatchLane, engine: GatedEngine) -> None:
    engine.most_rows = 0
    engine.gate.set()

    with pytest.raises(EngineError) as failure:
        await lane.submit(engine.run, [work(1)], deadline=FAR).outcome()

    assert isinstance(failure.value.__cause__, MemoryError)


async def test_further_work_waits_behind_what_came_meanwhile_even_where_the_queue_is_full(
    lane: BatchLane, engine: GatedEngine
) -> None:
    jobs = [lane.submit(engine.run, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    jobs += [lane.submit(engine.run, [work(name, 100)], deadline=FAR) for name in range(1, 5)]
    further = lane.submit_further(engine.run, [work(5, 100)], deadline=FAR)
    engine.gate.set()
    await asyncio.gather(*(job.outcome() for job in (*jobs, further)))

    assert engine.batches == [[0], [1], [2], [3], [4], [5]]


async def test_a_request_that_would_be_late_is_refused_at_once(lane: BatchLane, engine: GatedEngine) -> None:
    running = lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    lane._forecast._times.record(1, 5.0)  # as if the batch before had taken that long
    in_time = lane.submit(engine.run, [work(1)], deadline=time.monotonic() + 3600)

    with pytest.raises(OverloadedError, match=r"would be there in about .* s, the deadline is in") as refused:
        lane.submit(engine.run, [work(2)], deadline=time.monotonic() + 1)

    assert 1 <= (refused.value.retry_after_s or 0) <= 60
    assert lane.num_waiting == 1
    engine.gate.set()
    await asyncio.gather(running.outcome(), in_time.outcome())


async def test_a_lane_that_fails_itself_tells_and_fails_what_it_holds(engine: GatedEngine) -> None:
    crashes: list[tuple[str, BaseException]] = []
    lane = BatchLane(LIMITS, Metrics(), lambda name, error: crashes.append((name, error)))
    lane.start()
    running = lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    waiting = lane.submit(engine.run, [work(1)], deadline=FAR)
    lane._metrics.observe_batch = broken  # type: ignore[assignment,method-assign]
    engine.gate.set()

    assert (await running.outcome()).results == (0,)
    with pytest.raises(EngineError, match="the ranking lane has failed"):
        await waiting.outcome()
    await lane.close(30)
    assert [(name, str(error)) for name, error in crashes] == [("ranking", "broken")]
    with pytest.raises(DrainingError):
        lane.submit(engine.run, [work(2)], deadline=FAR)


def broken(*_: object) -> None:
    raise RuntimeError("broken")


async def test_others_can_wait_for_the_batch_that_runs_but_not_for_ever(lane: BatchLane, engine: GatedEngine) -> None:
    lane.wait_idle(3600)
    job = lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    lane.wait_idle(0.001)
    waiting = asyncio.create_task(asyncio.to_thread(lane.wait_idle, 3600))
    await asyncio.sleep(0)

    assert not waiting.done()
    engine.gate.set()
    await job.outcome()
    await waiting


async def test_a_lane_tells_how_long_its_engine_has_been_away(lane: BatchLane, engine: GatedEngine) -> None:
    assert lane.busy_s == 0
    job = lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    before = lane.busy_s

    assert 0 < before <= lane.busy_s
    engine.gate.set()
    await job.outcome()


async def test_closing_fails_what_waits_and_refuses_what_comes(engine: GatedEngine) -> None:
    lane = BatchLane(LIMITS, Metrics(), unexpected)
    lane.start()
    running = lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    waiting = lane.submit(engine.run, [work(1)], deadline=FAR)
    closing = asyncio.ensure_future(lane.close(30))

    with pytest.raises(DrainingError):
        await waiting.outcome()
    with pytest.raises(DrainingError):
        lane.submit(engine.run, [work(2)], deadline=FAR)
    engine.gate.set()
    assert (await running.outcome()).results == (0,)
    await closing
