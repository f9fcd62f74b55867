"""The lag of the event loop counts at once and is forgotten slowly."""

from __future__ import annotations

from service.batching.loop_lag import LoopLag


def test_a_loop_that_keeps_up_has_no_lag() -> None:
    lag = LoopLag()
    lag.record(0.004)

    assert lag.seconds == 0


def test_a_rise_is_followed_at_once_and_a_fall_slowly() -> None:
    lag = LoopLag()
    lag.record(0.5)
    assert lag.seconds == 0.5
    lag.record(0.0)
    assert 0.3 < lag.seconds < 0.5
    for _ in range(30):
        lag.record(0.0)
    assert lag.seconds == 0
