"""A lane survives failures of its engine, and requests fail alone."""

from __future__ import annotations

import asyncio

import pytest

from model.engine.protocol import Ranking
from model.errors import EngineError
from service.batching.batch_lane import BatchLane
from service.errors import DrainingError
from service.observability.metrics import Metrics
from tests.service.lanes import FAR, LIMITS
from tests.service.plans import GatedEngine, name_of, scores_named, search_named


def _value(lane: BatchLane, name: str) -> float:
    lines = lane._metrics.render().content.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


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


async def test_a_lane_that_fails_itself_tells_and_fails_what_it_holds(engine: GatedEngine) -> None:
    crashes: list[tuple[str, BaseException]] = []
    lane = BatchLane(engine, LIMITS, Metrics(), lambda name, error: crashes.append((name, error)))
    lane.start()
    running = lane.submit(search_named(0), deadline=FAR)
    await engine.wait_entered()
    waiting = lane.submit(search_named(1), deadline=FAR)
    lane._forecast.end = broken  # type: ignore[method-assign]
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
