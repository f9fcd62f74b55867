"""The text lane lets texts join and leave between steps, and loses none where memory or a prompt fails."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from model.engine.plans import TextPlan
from model.engine.protocol import GeneratedText
from model.errors import EngineError
from service.batching import text_lane
from service.batching.job import Job
from service.batching.shares import Client
from service.batching.text_lane import MAX_JOINING_TOKENS, MAX_YIELD_S, TextLane
from service.errors import DeadlineError, DrainingError, OverloadedError, QueueFullError
from service.observability.metrics import Metrics
from service.settings.options import QueueLimits
from tests.service.lanes import unexpected
from tests.service.plans import GatedTexts, text_named

LIMITS = QueueLimits(max_waiting=4, max_batch_rows=3, max_batch_tokens=4 * MAX_JOINING_TOKENS)
FAR = math.inf


@pytest.fixture
def texts() -> GatedTexts:
    return GatedTexts(LIMITS.max_batch_rows)


@pytest.fixture
async def lane(texts: GatedTexts) -> AsyncIterator[TextLane]:
    lane = TextLane(lambda _: texts, LIMITS, Metrics(), unexpected, lambda _: None)
    lane.start()
    yield lane
    texts.steps.gate.set()
    await lane.close(30)


async def text_of(job: Job[TextPlan, GeneratedText]) -> tuple[int, ...]:
    return (await job.result()).token_ids


async def test_a_text_joins_while_another_runs_and_a_short_one_does_not_wait_for_a_long_one(
    lane: TextLane, texts: GatedTexts
) -> None:
    long = lane.submit(text_named(50), deadline=FAR)
    await texts.steps.wait_entered()
    short = lane.submit(text_named(2), deadline=FAR)
    texts.steps.gate.set()

    assert await text_of(short) == (2, 2)
    assert await text_of(long) == (50,) * 50
    assert texts.stepped == [[50], [50, 2], [50, 2]] + [[50]] * 47


async def test_what_waits_joins_as_rows_become_free_in_order(lane: TextLane, texts: GatedTexts) -> None:
    jobs = [lane.submit(text_named(1), deadline=FAR)]
    await texts.steps.wait_entered()
    jobs += [lane.submit(text_named(name), deadline=FAR) for name in (3, 4, 5, 6)]
    texts.steps.gate.set()

    assert [len(await text_of(job)) for job in jobs] == [1, 3, 4, 5, 6]
    assert texts.admitted == [[1], [3, 4, 5], [6]]
    assert [6, 4, 5] in texts.stepped


async def test_prompts_that_join_running_texts_are_few_tokens_at_a_time(lane: TextLane, texts: GatedTexts) -> None:
    jobs = [lane.submit(text_named(4), deadline=FAR)]
    await texts.steps.wait_entered()
    jobs += [lane.submit(text_named(name, MAX_JOINING_TOKENS * 3 // 4), deadline=FAR) for name in (2, 3)]
    texts.steps.gate.set()
    for job in jobs:
        await text_of(job)

    assert texts.admitted == [[4], [2], [3]]
    assert texts.stepped[:3] == [[4], [4, 2], [4, 2, 3]]


async def test_each_step_gives_way_first(texts: GatedTexts) -> None:
    order: list[str] = []
    lane = TextLane(
        lambda _: texts, LIMITS, Metrics(), unexpected, lambda _: order.append(f"before {len(texts.stepped)}")
    )
    lane.start()
    texts.steps.gate.set()
    await text_of(lane.submit(text_named(3), deadline=FAR))
    await lane.close(30)

    assert order == ["before 0", "before 1", "before 2"]


async def test_tokens_are_delivered_as_they_come(lane: TextLane, texts: GatedTexts) -> None:
    tokens: asyncio.Queue[int] = asyncio.Queue()
    job = lane.submit(text_named(3), deadline=FAR, on_token=tokens.put_nowait)
    await texts.steps.wait_entered()
    assert tokens.empty()
    texts.steps.gate.set()
    await text_of(job)

    assert [tokens.get_nowait() for _ in range(tokens.qsize())] == [3, 3, 3]


async def test_a_text_that_nobody_waits_for_is_cancelled_at_the_next_step(lane: TextLane, texts: GatedTexts) -> None:
    left = lane.submit(text_named(50), deadline=FAR)
    stays = lane.submit(text_named(51), deadline=FAR)
    late = lane.submit(text_named(52), deadline=time.monotonic() + 0.05)
    await texts.steps.wait_entered()
    left.abandon()
    with pytest.raises(DeadlineError):
        await late.result()
    texts.steps.gate.set()

    assert await text_of(stays) == (51,) * 51
    assert sorted(texts.cancelled) == [50, 52]


async def test_a_full_queue_refuses_and_a_closed_one_too(lane: TextLane, texts: GatedTexts) -> None:
    running = [lane.submit(text_named(2), deadline=FAR)]
    await texts.steps.wait_entered()
    running += [lane.submit(text_named(2), deadline=FAR) for _ in range(4)]

    with pytest.raises(QueueFullError, match="4 requests are waiting, the limit is 4"):
        lane.submit(text_named(2), deadline=FAR)
    closing = asyncio.ensure_future(lane.close(30))
    with pytest.raises(DrainingError):
        await running[-1].result()
    with pytest.raises(DrainingError):
        lane.submit(text_named(2), deadline=FAR)
    texts.steps.gate.set()
    assert await text_of(running[0]) == (2, 2)
    await closing


async def test_a_text_that_would_be_late_is_refused_at_once(lane: TextLane, texts: GatedTexts) -> None:
    running = lane.submit(text_named(3), deadline=FAR)
    await texts.steps.wait_entered()
    lane._forecast.record_step(1.0, 1)
    lane._forecast.record_text(100)

    with pytest.raises(OverloadedError):
        lane.submit(text_named(60), deadline=time.monotonic() + 40)
    short = lane.submit(text_named(20), deadline=time.monotonic() + 40)
    texts.steps.gate.set()
    assert len(await text_of(running)) == 3
    assert len(await text_of(short)) == 20


async def test_a_bad_prompt_fails_its_own_request_only(lane: TextLane, texts: GatedTexts) -> None:
    texts.bad_prompts = {3}
    jobs = [lane.submit(text_named(1), deadline=FAR)]
    await texts.steps.wait_entered()
    jobs += [lane.submit(text_named(name), deadline=FAR) for name in (2, 3, 4)]
    texts.steps.gate.set()

    assert [len(await text_of(job)) for job in (jobs[0], jobs[1], jobs[3])] == [1, 2, 4]
    with pytest.raises(EngineError) as failure:
        await jobs[2].result()
    assert str(failure.value.__cause__) == "a bad prompt"


async def test_a_text_that_fails_on_the_way_leaves_the_others_running(lane: TextLane, texts: GatedTexts) -> None:
    tokens: list[int] = []
    jobs = [lane.submit(text_named(name), deadline=FAR, on_token=tokens.append) for name in (5, 6, 7)]
    await texts.steps.wait_entered()
    texts.bad_texts = {6}
    texts.steps.gate.set()

    with pytest.raises(EngineError):
        await jobs[1].result()
    assert [len(await text_of(job)) for job in (jobs[0], jobs[2])] == [5, 7]
    assert (tokens.count(5), tokens.count(7)) == (5, 7)
    assert texts.cancelled == [6]


async def test_a_step_without_memory_is_taken_in_halves(lane: TextLane, texts: GatedTexts) -> None:
    texts.most_stepped = 2
    jobs = [lane.submit(text_named(1), deadline=FAR)]
    await texts.steps.wait_entered()
    jobs += [lane.submit(text_named(4), deadline=FAR) for _ in range(3)]
    texts.steps.gate.set()

    assert [len(await text_of(job)) for job in jobs] == [1, 4, 4, 4]
    assert texts.stepped == [[1]] + [[4, 4], [4]] * 4


async def test_prompts_for_which_there_is_no_memory_wait_until_a_text_has_ended(
    lane: TextLane, texts: GatedTexts
) -> None:
    jobs = [lane.submit(text_named(3), deadline=FAR)]
    await texts.steps.wait_entered()
    texts.most_admitted = 0  # while any text runs
    jobs += [lane.submit(text_named(1), deadline=FAR)]
    texts.steps.gate.set()
    await text_of(jobs[0])
    texts.most_admitted = 1

    assert await text_of(jobs[1]) == (1,)
    assert texts.stepped == [[3], [3], [3], [1]]


async def test_a_client_with_rows_leaves_one_for_another(texts: GatedTexts) -> None:
    limits = QueueLimits(max_waiting=40, max_batch_rows=20, max_batch_tokens=4 * MAX_JOINING_TOKENS)
    many = GatedTexts(limits.max_batch_rows)
    lane = TextLane(lambda _: many, limits, Metrics(), unexpected, lambda _: None)
    lane.start()
    flood = [lane.submit(text_named(20 + name), deadline=FAR, client=Client("flood")) for name in range(20)]
    await many.steps.wait_entered()
    calm = lane.submit(text_named(2), deadline=FAR, client=Client("calm"))
    many.steps.gate.set()

    assert await text_of(calm) == (2, 2)
    joined = next(number for number, rows in enumerate(many.stepped) if 2 in rows)
    assert joined <= 2, "it waits for no text's end"
    assert [len(await text_of(job)) for job in flood] == [20 + name for name in range(20)]
    await lane.close(30)


async def test_texts_with_keys_give_way_no_longer_than_they_run(
    texts: GatedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    allowed: list[float] = []
    monkeypatch.setattr(text_lane, "time", SimpleNamespace(monotonic=lambda: now))

    def wait_for_rankings(timeout_s: float) -> None:
        nonlocal now
        allowed.append(timeout_s)
        now += timeout_s

    lane = TextLane(lambda _: texts, LIMITS, Metrics(), unexpected, wait_for_rankings)
    lane.start()
    texts.steps.gate.set()
    await text_of(lane.submit(text_named(5), deadline=FAR, client=Client("shop")))
    await lane.close(30)
    assert allowed == [MAX_YIELD_S, 0.0, 0.0, 0.0, 0.0], "its steps take no time by this clock"
