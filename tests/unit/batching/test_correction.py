from __future__ import annotations

import pytest

from service.batching.correction import MAX_FACTOR, CorrectionFactor


def test_nothing_is_corrected_before_anything_is_known() -> None:
    assert CorrectionFactor().value == 1.0


def test_forecasts_that_are_half_of_what_jobs_take_are_doubled() -> None:
    correction = CorrectionFactor()
    for _ in range(50):
        correction.record(1.0, 2.05)
    assert correction.value == pytest.approx(2.0, rel=0.01)


def test_all_but_the_slowest_jobs_end_sooner_than_is_corrected_for() -> None:
    correction = CorrectionFactor()
    took = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 3.0] * 30
    for seconds in took:
        correction.record(1.0, seconds)
    assert sum(seconds <= correction.value for seconds in took) >= 0.8 * len(took)


def test_forecasts_are_never_shortened_and_never_stretched_without_end() -> None:
    correction = CorrectionFactor()
    for _ in range(100):
        correction.record(10.0, 0.1)
    assert correction.value == 1.0
    for _ in range(100):
        correction.record(0.01, 1000.0)
    assert correction.value == pytest.approx(MAX_FACTOR)


def test_what_was_learned_fades_when_forecasts_are_right_again() -> None:
    correction = CorrectionFactor()
    for _ in range(20):
        correction.record(1.0, 4.0)
    before = correction.value
    for _ in range(100):
        correction.record(1.0, 1.0)
    assert correction.value < 1 + 0.1 * (before - 1)
