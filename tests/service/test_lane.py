"""A lane batches by padded tokens, drops the dead, refuses when full, and survives its engine's failures."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from model.engine.protocol import OnToken, TextWork, Timings
from model.errors import EngineError
from service.batching.job import Outcome
from service.batching.lane import Lane
from service.batching.queue import DrainRate
from service.errors import DeadlineError, DrainingError, QueueFullError
from service.metrics import Metrics
from service.settings import QueueLimits
from tests.service.works import NO_TIME, GatedEngine, name_of, work

LIMITS = QueueLimits(max_waiting=4, max_batch_rows=3, max_batch_tokens=100)
FAR = math.inf


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def lane(engine: GatedEngine) -> AsyncIterator[Lane]:
    lane = Lane("test", LIMITS, Metrics())
    lane.start()
    yield lane
    engine.gate.set()
    await lane.close(30)


def names(outcomes: Sequence[Outcome[int]]) -> list[tuple[int, ...]]:
    return [outcome.results for outcome in outcomes]


async def test_requests_that_wait_together_run_together(lane: Lane, engine: GatedEngine) -> None:
    call = engine.run
    first = lane.submit(call, [work(0)], deadline=FAR)
    await engine.wait_entered()
    others = [lane.submit(call, [work(name)], deadline=FAR) for name in (1, 2, 3)]
    engine.gate.set()

    outcomes = await asyncio.gather(*(job.outcome() for job in (first, *others)))

    assert names(outcomes) == [(0,), (1,), (2,), (3,)]
    assert engine.batches == [[0], [1, 2, 3]]


async def test_a_batch_keeps_to_the_padded_token_budget_and_to_the_order(lane: Lane, engine: GatedEngine) -> None:
    call = engine.run
    jobs = [lane.submit(call, [work(0)], deadline=FAR)]
    await engine.wait_entered()
    # Padded, 1 and 2 take 2 x 40 tokens; with 3 it would be 3 x 40. 4 would fit beside 1 and 2 but must not overtake 3.
    jobs += [lane.submit(call, [work(n, size)], deadline=FAR) for n, size in ((1, 40), (2, 1), (3, 40), (4, 1))]
    engine.gate.set()
    await asyncio.gather(*(job.outcome() for job in jobs))

    assert engine.batches == [[0], [1, 2], [3, 4]]


async def test_a_request_over_the_budget_runs_alone_and_in_parts(lane: Lane, engine: GatedEngine) -> None:
    engine.gate.set()

    outcome = await lane.submit(engine.run, [work(n, 40) for n in range(5)], deadline=FAR).outcome()

    assert outcome.results == (0, 1, 2, 3, 4)
    assert engine.batches == [[0, 1], [2, 3], [4]]


async def test_methods_of_the_engine_are_not_mixed_in_a_batch(lane: Lane, engine: GatedEngine) -> None:
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


async def test_a_full_queue_refuses_and_says_when_to_try_again(lane: Lane, engine: GatedEngine) -> None:
    lane.submit(engine.run, [work(0)], deadline=FAR)
    await engine.wait_entered()
    for name in range(1, 5):
        lane.submit(engine.run, [work(name)], deadline=FAR)

    with pytest.raises(QueueFullError, match="4 requests are waiting, the limit is 4") as refused:
        lane.submit(engine.run, [work(5)], deadline=FAR)

    assert refused.value.retry_after_s == 1


async def test_abandoned_requests_make_room_and_are_not_run(lane: Lane, engine: GatedEngine) -> None:
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
    lane: Lane, engine: GatedEngine
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


async def test_a_deadline_that_passes_in_the_engine_fails_the_request_only(lane: Lane, engine: GatedEngine) -> None:
    call = engine.run
    late = lane.submit(call, [work(1)], deadline=time.monotonic() + 0.01)
    await engine.wait_entered()

    with pytest.raises(DeadlineError):
        await late.outcome()

    engine.gate.set()
    assert (await lane.submit(call, [work(2)], deadline=FAR).outcome()).results == (2,)


async def test_one_poisoned_request_does_not_fail_the_others_of_its_batch(lane: Lane, engine: GatedEngine) -> None:
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


async def test_an_engine_that_loses_rows_fails_the_request(lane: Lane) -> None:
    def forgetful(rows: Sequence[TextWork], on_token: OnToken, /) -> tuple[list[int], Timings]:
        return [], NO_TIME

    with pytest.raises(EngineError) as failure:
        await lane.submit(forgetful, [work(0)], deadline=FAR).outcome()

    assert str(failure.value.__cause__) == "the engine gave 0 results for 1 rows"


async def test_tokens_reach_the_request_that_they_belong_to_and_abandoned_rows_are_stopped(lane: Lane) -> None:
    told: dict[int, list[int]] = {0: [], 1: [], 2: []}
    blocker = GatedEngine()
    wanted: dict[int, bool] = {}

    def generate(rows: Sequence[TextWork], on_token: OnToken, /) -> tuple[list[int], Timings]:
        for row, each in enumerate(rows):
            wanted[name_of(each)] = on_token(row, 10 + name_of(each))
        return [name_of(row) for row in rows], NO_TIME

    first = lane.submit(blocker.run, [work(0)], deadline=FAR)
    await blocker.wait_entered()
    jobs = [lane.submit(generate, [work(n)], deadline=FAR, on_token=told[n].append) for n in (1, 2)]
    blocker.gate.set()
    await asyncio.gather(first.outcome(), *(job.outcome() for job in jobs))

    assert told == {0: [], 1: [11], 2: [12]}
    assert wanted == {1: True, 2: True}
    assert jobs[0].emit(13) is False  # nobody waits any more
    assert told[1] == [11]


async def test_a_text_that_has_been_streamed_is_not_started_again(lane: Lane) -> None:
    told: list[int] = []
    runs: list[list[int]] = []
    blocker = GatedEngine()

    def fails_in_batches(rows: Sequence[TextWork], on_token: OnToken, /) -> tuple[list[int], Timings]:
        runs.append([name_of(row) for row in rows])
        if len(rows) > 1:
            on_token(0, 7)
            raise RuntimeError("too many")
        return [name_of(row) for row in rows], NO_TIME

    first = lane.submit(blocker.run, [work(0)], deadline=FAR)
    await blocker.wait_entered()
    streamed = lane.submit(fails_in_batches, [work(1)], deadline=FAR, on_token=told.append)
    whole = lane.submit(fails_in_batches, [work(2)], deadline=FAR)
    blocker.gate.set()
    await first.outcome()

    with pytest.raises(EngineError):
        await streamed.outcome()
    assert (await whole.outcome()).results == (2,)
    assert told == [7]
    assert runs == [[1, 2], [2]]


async def test_closing_fails_what_waits_and_refuses_what_comes(engine: GatedEngine) -> None:
    lane = Lane("test", LIMITS, Metrics())
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


@pytest.mark.parametrize(
    ("batches", "num_waiting", "expected"),
    [
        ([], 100, 1),
        ([(1, 0.5)], 10, 5),
        ([(10, 0.5)], 10, 1),
        ([(1, 1.0), (1, 2.0)], 10, 12),
        ([(1, 30.0)], 100, 60),
    ],
)
def test_retry_after_follows_the_measured_drain_rate(
    batches: list[tuple[int, float]], num_waiting: int, expected: int
) -> None:
    rate = DrainRate(weight=0.2)
    for num_jobs, duration_s in batches:
        rate.record(num_jobs, duration_s)

    assert rate.retry_after_s(num_waiting) == expected
