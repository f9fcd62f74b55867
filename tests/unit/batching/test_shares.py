"""Clients that wait at once get fair shares of a lane, whatever the number of their jobs."""

from __future__ import annotations

import math

import pytest

from service.batching.composition import BatchBudget
from service.batching.forecast import BatchForecast
from service.batching.job import AnyJob, Job
from service.batching.queue import JobQueue
from service.batching.shares import ACTIVE_S, ARREARS_S, Client, Shares
from service.errors import QueueFullError
from service.settings.options import QueueLimits
from tests.service.plans import attribution_named, search_named

SMALL, LARGE = Client("small"), Client("large")
ONE = BatchBudget(max_rows=1, max_tokens=1_000)


def job(client: Client, name: int = 1, num_tokens: int = 10) -> AnyJob:
    return Job(search_named(name, num_tokens), deadline=math.inf, client=client)


def queue_of(max_waiting: int = 100, max_rows: int = 64) -> JobQueue[AnyJob]:
    return JobQueue(max_waiting, BatchForecast(QueueLimits(max_waiting, max_rows, 16_384)))


def order_of(queue: JobQueue[AnyJob], number: int) -> list[str]:
    """Names of the clients whose jobs run next, one at a time."""
    return [each.client.name for _ in range(number) for each in queue.take(ONE, waits=False) or []]


async def test_a_client_that_comes_behind_a_burst_is_next_but_for_its_share() -> None:
    queue = queue_of()
    for _ in range(50):
        queue.put(job(LARGE))
    assert order_of(queue, 5) == ["large"] * 5
    for _ in range(4):
        queue.put(job(SMALL))
    assert order_of(queue, 8).count("small") == 4
    assert order_of(queue, 3) == ["large"] * 3


async def test_shares_are_of_work_and_not_of_requests() -> None:
    queue = queue_of()
    for _ in range(40):
        queue.put(job(LARGE, num_tokens=86))  # with its beams, three times as much as 26
        queue.put(job(SMALL, num_tokens=26))
    order = order_of(queue, 24)
    assert 17 <= order.count("small") <= 19


async def test_weights_divide_the_work() -> None:
    queue = queue_of()
    heavy = Client("heavy", weight=3.0)
    for _ in range(40):
        queue.put(job(heavy))
        queue.put(job(SMALL))
    assert 17 <= order_of(queue, 24).count("heavy") <= 19


def patient(client: Client, num_tokens: int = 10) -> AnyJob:
    return Job(attribution_named((1,), num_tokens), deadline=math.inf, client=client)


async def test_patient_jobs_cost_their_client_no_place_among_the_others() -> None:
    queue = queue_of()
    for _ in range(5):
        queue.put(patient(SMALL, num_tokens=500))
    for _ in range(4):
        queue.put(job(LARGE))
        queue.put(job(SMALL))
    assert order_of(queue, 4).count("small") == 2
    assert order_of(queue, 5)[:4].count("small") == 2
    queue.put(job(LARGE))
    queue.put(job(SMALL))
    assert order_of(queue, 2) == ["large", "small"], "nor where only they have run meanwhile"


async def test_patient_jobs_of_several_clients_get_fair_shares() -> None:
    queue = queue_of()
    for _ in range(20):
        queue.put(patient(LARGE))
    queue.put(patient(SMALL))
    assert "small" in order_of(queue, 2)


async def test_waiting_patient_jobs_are_no_burst() -> None:
    queue = queue_of()
    for _ in range(10):
        queue.put(patient(LARGE))
    queue.put(job(SMALL))
    queue.put(job(LARGE))
    assert len(queue.take(BatchBudget(max_rows=64, max_tokens=1_000), waits=False) or []) == 2


async def test_jobs_of_one_client_keep_their_order_whatever_their_size() -> None:
    queue = queue_of()
    jobs = [job(SMALL, number, num_tokens=size) for number, size in enumerate((90, 5, 50, 1))]
    for each in jobs:
        queue.put(each)
    assert [taken for _ in jobs for taken in queue.take(ONE, waits=False) or []] == jobs


async def test_a_client_that_was_idle_has_no_claim_on_the_past() -> None:
    queue = queue_of()
    queue.put(job(SMALL))
    for _ in range(30):
        queue.put(job(LARGE))
    assert len(order_of(queue, 31)) == 31
    for _ in range(10):
        queue.put(job(SMALL))
        queue.put(job(LARGE))
    assert order_of(queue, 10).count("small") == 5


async def test_a_full_queue_makes_room_for_a_client_with_less() -> None:
    queue = queue_of(max_waiting=4)
    burst = [job(LARGE, number) for number in range(4)]
    for each in burst:
        queue.put(each)
    with pytest.raises(QueueFullError):
        queue.put(job(LARGE))

    queue.check(math.inf, client=SMALL)
    queue.put(job(SMALL))

    with pytest.raises(QueueFullError, match="4 of your requests are waiting"):
        await burst[3].result()
    assert len(queue) == 4
    assert sorted(order_of(queue, 4)) == ["large"] * 3 + ["small"]


async def test_batches_are_short_during_a_burst_and_long_without_others() -> None:
    forecast = BatchForecast(QueueLimits(100, 64, 16_384))
    for size in (10, 1_000):
        forecast.begin(size)
        forecast.end()
    forecast._times.record(10, 1.0)
    forecast._times.record(1_000, 100.0)
    queue: JobQueue[AnyJob] = JobQueue(100, forecast)
    budget = BatchBudget(64, 16_384)
    for number in range(20):
        queue.put_continued(job(LARGE, number))
    assert len(queue.take(budget, waits=False) or []) == 20, "alone"
    queue.put_continued(job(SMALL))
    for number in range(20):
        queue.put_continued(job(LARGE, number))
    assert len(queue.take(budget, waits=False) or []) <= 2, "beside another"


def test_an_unused_share_is_made_up_for_and_then_no_more() -> None:
    now = [0.0]
    shares = Shares(lambda: now[0])
    for _ in range(100):  # the clock runs 10 of a share's tokens a tenth of a second
        now[0] += 0.1
        shares.start(LARGE, 10, shares.take(LARGE, 10))
    behind = shares.take(LARGE, 10)
    places = [shares.take(SMALL, 10) for _ in range(40)]
    claim = round(ARREARS_S / 0.1)
    assert sum(place < behind for place in places) in range(claim, claim + 3)

    shares.rest()
    assert shares.take(SMALL, 10) == shares.take(LARGE, 10), "an idle lane leaves no share unused"


async def test_a_batch_that_others_may_wait_for_is_no_longer_than_was_measured() -> None:
    forecast = BatchForecast(QueueLimits(100, 64, 16_384))
    queue: JobQueue[AnyJob] = JobQueue(100, forecast)
    budget = BatchBudget(64, 16_384)
    for _ in range(10):  # single requests, from which the time of a second row is not known
        forecast._times.record(job(LARGE).size, 0.1)
    queue.put_continued(job(SMALL))
    for number in range(50):
        queue.put_continued(job(LARGE, number))
    sizes = []
    while batch := queue.take(budget, waits=False):
        sizes.append(len(batch))
        forecast._times.record(sum(each.size for each in batch), 0.1 * len(batch))
    assert sizes[0] <= 2
    assert max(sizes) <= 2, "each row takes as long as one alone"

    for number in range(50):
        queue.put_continued(job(LARGE, number))
    grown = []
    while batch := queue.take(budget, waits=False):
        grown.append(len(batch))
        forecast._times.record(sum(each.size for each in batch), 0.1)
    assert max(grown) >= 16, "rows that cost nothing are taken together, as soon as that is known"


def test_clients_that_left_are_forgotten() -> None:
    now = [0.0]
    shares = Shares(lambda: now[0])
    for number in range(1_000):
        now[0] += 1.0
        place = shares.take(Client(str(number)), 10)
        shares.start(Client(str(number)), 10, place)
        if number % 7 == 0:
            shares.rest()
    assert len(shares._seen_at) <= ACTIVE_S + 2
    assert len(shares._ends) <= 7
