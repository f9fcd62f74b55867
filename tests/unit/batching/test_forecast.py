"""Forecasts of a lane, from batches with known times."""

from __future__ import annotations

import asyncio
import math

import pytest

from service.batching.forecast import BatchForecast, BatchTimeModel, RetryJitter, TextForecast
from service.batching.job import AnyJob, Job
from service.batching.work import NO_WORK, Work
from service.settings.options import QueueLimits
from tests.service.plans import text_named

LIMITS = QueueLimits(max_waiting=100, max_batch_rows=4, max_batch_tokens=1000)


def jobs(*lengths: int) -> list[AnyJob]:
    """Jobs of one row and size 11 each, for prompts of ten tokens; the texts have these lengths."""

    async def made() -> list[AnyJob]:
        return [Job(text_named(length, 10)) for length in lengths]

    return asyncio.run(made())


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_times_that_grow_with_the_size_are_told_apart_from_what_every_batch_costs() -> None:
    times = BatchTimeModel()
    for size in (10, 40, 20, 80, 10, 60):
        times.record(size, 0.5 + 0.01 * size)

    assert times.estimate_s(1, 100) == pytest.approx(1.5)
    assert times.estimate_s(3, 100) == pytest.approx(2.5)


def test_batches_that_were_all_alike_are_expected_to_go_on_like_that() -> None:
    times = BatchTimeModel()
    for _ in range(5):
        times.record(50, 0.2)

    assert times.estimate_s(1, 50) == pytest.approx(0.2)
    assert times.estimate_s(4, 200) == pytest.approx(0.8)


def test_what_a_size_costs_is_remembered_while_batches_are_all_alike_and_forgotten_later() -> None:
    model = BatchTimeModel()
    for size in (10, 20, 10):
        model.record(size, 0.02 + 0.01 * size)
    for _ in range(30):
        model.record(10, 0.12)
    assert model.estimate_s(1, 20) == pytest.approx(0.22, rel=0.1)
    for _ in range(300):
        model.record(10, 0.12)
    assert model.estimate_s(1, 20) == pytest.approx(0.12, rel=0.1)


def test_a_machine_that_becomes_slower_is_believed_soon() -> None:
    times = BatchTimeModel()
    for _ in range(50):
        times.record(50, 0.1)
    for _ in range(20):
        times.record(50, 0.5)

    assert 0.4 < times.estimate_s(1, 50) <= 0.5


def test_larger_batches_that_were_faster_give_no_negative_times() -> None:
    times = BatchTimeModel()
    for size, duration_s in ((10, 1.0), (100, 0.2), (10, 1.0)):
        times.record(size, duration_s)

    assert times.estimate_s(1, 1000) >= 0


def test_nothing_in_the_way_is_nothing_to_wait_for() -> None:
    forecast = BatchForecast(LIMITS, Clock())
    (job,) = jobs(1)
    assert forecast.completion_s(NO_WORK, job) == 0
    forecast.begin(job.size)
    assert forecast.completion_s(NO_WORK, job) == 0, "nothing has been measured yet"


def test_a_job_is_done_after_what_runs_and_the_batches_before_it() -> None:
    clock = Clock()
    forecast = BatchForecast(LIMITS, clock)
    running, *waiting, last = jobs(*[1] * 13)
    for _ in range(3):
        forecast.begin(sum(job.size for job in waiting[:4]))
        clock.now += 2.0
        forecast.end()
    forecast.begin(sum(job.size for job in (running, *waiting[:3])))
    clock.now += 0.5

    # 1.5 s are left of the batch; 11 and the last are three batches of four, as those were that were measured.
    assert forecast.completion_s(Work.of(waiting), last) == pytest.approx(1.5 + 3 * 2.0)
    clock.now += 10
    assert forecast.completion_s(Work.of(waiting[:3]), last) == pytest.approx(2.0), "what runs is overdue, not negative"


def test_jobs_are_not_taken_to_go_faster_in_larger_batches_than_were_measured() -> None:
    clock = Clock()
    forecast = BatchForecast(LIMITS, clock)
    running, *waiting, last = jobs(*[1] * 10)
    for _ in range(3):
        forecast.begin(running.size)
        clock.now += 2.0
        forecast.end()
    assert forecast.completion_s(Work.of(waiting), last) == pytest.approx(9 * 2.0)


def test_patient_batches_tell_how_large_one_of_a_duration_is_and_nothing_of_the_others() -> None:
    clock = Clock()
    forecast = BatchForecast(LIMITS, clock)
    (job,) = jobs(1)
    assert forecast.patient_size(1.0) == math.inf, "nothing has been measured yet"
    forecast.begin(job.size)
    clock.now += 2.0
    forecast.end()
    assert forecast.patient_size(4.0) == pytest.approx(2 * job.size), "as for the others"
    assert forecast.patient_size(1.0) == pytest.approx(job.size), "no shorter than the others"
    forecast.begin_patient(1_000)
    clock.now += 4.0
    assert forecast.completion_s(NO_WORK, job) == pytest.approx(2.0), "no patient one has been measured yet"
    forecast.end()
    assert forecast.patient_size(8.0) == pytest.approx(2_000)
    assert forecast.completion_s(Work.of([job])) == pytest.approx(2.0)
    forecast.begin_patient(1_000)
    clock.now += 1.0
    assert forecast.completion_s(NO_WORK, job) == pytest.approx(3.0 + 2.0), "what runs is in the way"


def test_texts_wait_for_rows_only() -> None:
    forecast = TextForecast(num_rows=2)
    forecast.record_admission(0.25, 1)
    forecast.record_step(0.1, 1)
    forecast.record_text(20)
    first, second, third = jobs(100, 100, 5)

    assert forecast.completion_s(NO_WORK, first) == pytest.approx(0.25 + 2.0), "a row is free"
    forecast.record_step(0.1, 2)
    assert forecast.completion_s(NO_WORK, first) == pytest.approx(0.25 + 1.0 + 2.0), "two rows end every 2 s"
    assert forecast.completion_s(Work.of([first, second]), third) == pytest.approx(0.25 + 3.0 + 0.5), "and it is short"


def test_texts_of_an_idle_lane_are_never_too_late() -> None:
    forecast = TextForecast(num_rows=2)
    forecast.record_step(100.0, 0)
    forecast.record_text(20)
    (job,) = jobs(5)

    assert forecast.completion_s(NO_WORK, job) == 0


@pytest.mark.parametrize(
    ("estimate_s", "drawn", "expected"),
    [(0.0, 0.0, 1), (0.2, 0.0, 1), (0.2, 0.9, 2), (1.2, 0.0, 2), (4.0, 0.0, 4), (4.0, 0.5, 6), (90.0, 0.5, 60)],
)
def test_clients_are_told_the_estimate_or_more_in_whole_seconds(estimate_s: float, drawn: float, expected: int) -> None:
    assert RetryJitter(lambda: drawn).retry_after_s(estimate_s) == expected


def test_clients_that_are_refused_together_are_told_different_times() -> None:
    spread = RetryJitter()
    told = {spread.retry_after_s(10.0) for _ in range(200)}

    assert min(told) >= 10
    assert max(told) <= 20
    assert len(told) > 5
