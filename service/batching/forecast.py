"""Forecasts of a lane's completion times, learned from the batches that it has run.

Uses only the number, length and size of jobs.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Protocol

from service.batching.job import Load
from service.batching.work import Work
from service.settings.options import QueueLimits

MAX_RETRY_S = 60
DECAY = 0.7
"""Weight of the past in each exponential moving average, per measurement."""
SLOPE_DECAY = 0.99
"""Weight of what was known of a size's cost, per measurement that does not tell it: it is tried again now and then."""
REACH = 2.0
"""Size of the largest batch whose duration is told, relative to the largest that was measured recently."""


class Forecast(Protocol):
    """Updated on the lane's thread, read on the event loop's."""

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        """Seconds until all waiting jobs, and then `job`, are done; 0 if nothing was measured or is in the way."""
        ...

    def batch_s(self, size: int) -> float:
        """Seconds until a batch of this size ends for all its jobs; 0 if unknown, or if jobs end independently.

        Infinite if it is so much larger than recent batches that its duration cannot be told from theirs.
        """
        ...


class RetryJitter:
    """Random whole seconds for Retry-After, so that clients rejected together do not retry together."""

    def __init__(self, draw: Callable[[], float] | None = None) -> None:
        """`draw` returns numbers in [0, 1)."""
        self._draw = draw or random.SystemRandom().random

    def retry_after_s(self, estimate_s: float) -> int:
        """Between the estimate and twice the estimate (at least 1 s more), limited to [1, MAX_RETRY_S]."""
        jittered_s = estimate_s + self._draw() * max(estimate_s, 1.0)
        return min(max(math.ceil(jittered_s), 1), MAX_RETRY_S)


class BatchTimeModel:
    """Duration of a batch as fixed + per_unit · size, fitted by exponentially weighted least squares."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._largest = 0.0
        self._per_unit = 0.0

    @property
    def reach(self) -> float:
        """Largest size that the fit tells about; infinite before the first measurement."""
        return REACH * self._largest if self._weight else math.inf

    @property
    def mean_s(self) -> float:
        """Recent mean duration of a batch; 0 before the first measurement."""
        return self._y / self._weight if self._weight else 0.0

    def record(self, size: float, duration_s: float) -> None:
        self._largest = max(float(size), self._largest * DECAY)
        self._weight = self._weight * DECAY + 1
        self._x = self._x * DECAY + size
        self._y = self._y * DECAY + duration_s
        self._xx = self._xx * DECAY + size * size
        self._xy = self._xy * DECAY + size * duration_s
        self._per_unit = self._slope()

    def estimate_s(self, num_batches: int, size: float) -> float:
        """Seconds of `num_batches` batches of this total size; 0 before the first measurement."""
        if not self._weight:
            return 0.0
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        return num_batches * (mean_y - self._per_unit * mean_x) + self._per_unit * size

    def proportional_s(self, size: float) -> float:
        """Seconds of this size at the recent mean time per unit; 0 before the first measurement."""
        return size * self._y / self._x if self._x else 0.0

    def _slope(self) -> float:
        """Seconds per unit. If all recent batches were of similar size it is as known before, at first 0."""
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x**2
        per_unit = SLOPE_DECAY * self._per_unit
        if variance > (0.05 * mean_x) ** 2:
            per_unit = (self._xy / self._weight - mean_x * mean_y) / variance
        return min(max(per_unit, 0.0), mean_y / mean_x)


class BatchForecast:
    """Forecast of a lane that runs one batch after another."""

    def __init__(self, limits: QueueLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._times = BatchTimeModel()
        self._patient_times = BatchTimeModel()
        self._running: tuple[float, int, BatchTimeModel] | None = None  # start time, size, and times of such batches

    def begin(self, size: int) -> None:
        """A batch of this size starts."""
        self._running = self._clock(), size, self._times

    def begin_patient(self, size: int) -> None:
        """A batch of this size starts, of jobs that wait behind all others."""
        self._running = self._clock(), size, self._patient_times

    def end(self) -> None:
        """The running batch has finished."""
        assert self._running is not None
        since, size, times = self._running
        times.record(size, self._clock() - since)
        self._running = None

    def patient_size(self, duration_s: float) -> float:
        """Size of a batch of patient jobs that takes about this long, or as long as one of the others if that is more.

        So it is not cut up further on a machine that is slow or busy. Infinite if nothing was measured.
        """
        unit_s = self._patient_times.proportional_s(1) or self._times.proportional_s(1)
        return max(duration_s, self._times.mean_s) / unit_s if unit_s else math.inf

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        running = self._running
        if not (waiting.num_jobs or job) or (running is None and not waiting.num_jobs):
            return 0.0
        remaining_s = 0.0
        if running is not None:
            since, size, times = running
            remaining_s = max(0.0, times.estimate_s(1, size) - (self._clock() - since))
        _, num_rows, padded, size = waiting if job is None else waiting.with_one(job)
        # The fixed share of a batch's time and the number of batches are both uncertain: take the higher estimate.
        batches_s = self._times.estimate_s(self._num_batches(num_rows, padded), size)
        return remaining_s + max(batches_s, self._times.proportional_s(size))

    def batch_s(self, size: int) -> float:
        return math.inf if size > self._times.reach else self._times.estimate_s(1, size)

    def _num_batches(self, num_rows: int, padded: int) -> int:
        share = max(num_rows / self._limits.max_batch_rows, padded / self._limits.max_batch_tokens)
        return max(1, math.ceil(share))


class TextForecast:
    """Forecast of a lane whose texts run side by side, one step at a time."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._num_running = 0
        self._step_s = MovingAverage()
        self._admission_s = MovingAverage()
        self._length = MovingAverage()

    def record_step(self, duration_s: float, num_running: int) -> None:
        """`num_running` is the number of texts after the step."""
        self._step_s.add(duration_s)
        self._num_running = num_running

    def record_admission(self, duration_s: float, num_running: int) -> None:
        """`num_running` is the number of texts after the admission."""
        self._admission_s.add(duration_s)
        self._num_running = num_running

    def record_text(self, num_steps: int) -> None:
        """A text finished after this many steps."""
        self._length.add(num_steps)

    def completion_s(self, waiting: Work, job: Load | None = None) -> float:
        num_jobs = waiting.num_jobs + (job is not None)
        if not num_jobs or not (waiting.num_jobs or self._num_running):
            return 0.0
        text_s = self._length.mean * self._step_s.mean
        num_queued = max(0, num_jobs - (self._num_rows - self._num_running))
        return self._admission_s.mean + num_queued / self._num_rows * text_s + self._own_s(job)

    def batch_s(self, size: int) -> float:  # noqa: ARG002  # each text leaves as soon as it ends
        return 0.0

    def _own_s(self, job: Load | None) -> float:
        """Seconds of the job's own text: the mean length, or its limit if that is lower."""
        length = self._length.mean
        if job is not None and job.max_steps is not None:
            length = min(length, job.max_steps)
        return length * self._step_s.mean


class MovingAverage:
    """Exponential moving average; 0 before the first value."""

    def __init__(self) -> None:
        self.mean = 0.0
        self._is_empty = True

    def add(self, value: float) -> None:
        self.mean = value if self._is_empty else DECAY * self.mean + (1 - DECAY) * value
        self._is_empty = False
