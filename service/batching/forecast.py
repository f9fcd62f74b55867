"""How long a lane will take, from how long it took.

Knows jobs by number, length and size, not what they are.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from service.batching.job import AnyJob
from service.settings import QueueLimits

LONGEST_RETRY_S = 60
KEPT = 0.7
"""Weight of the past when something new is measured."""


class Forecast(Protocol):
    """A lane's expectation, learned on its thread and asked on the event loop's."""

    def completion_s(self, waiting: Sequence[AnyJob], job: AnyJob | None = None) -> float:
        """Seconds until all that waits, and this job after it, is done; 0 where nothing is known or in the way."""
        ...

    def batch_s(self, size: int) -> float:
        """Seconds that a batch of this size holds up all of its jobs; 0 where nothing is known, or none is held up."""
        ...


class Spread:
    """Whole seconds to tell clients to wait: never less than the estimate, and not the same for all.

    Those who are refused together and obey do not come back together: up to as much again, at least a second, is added
    at random.
    """

    def __init__(self, draw: Callable[[], float] | None = None) -> None:
        """`draw` gives numbers from 0 to 1."""
        self._draw = draw or random.SystemRandom().random

    def retry_after_s(self, estimate_s: float) -> int:
        """At least 1 and at most a minute."""
        spread_s = estimate_s + self._draw() * max(estimate_s, 1.0)
        return min(max(math.ceil(spread_s), 1), LONGEST_RETRY_S)


class BatchTimes:
    """Seconds of a batch as fixed + per_unit · size: least squares in which the past fades."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def record(self, size: float, duration_s: float) -> None:
        self._weight = self._weight * KEPT + 1
        self._x = self._x * KEPT + size
        self._y = self._y * KEPT + duration_s
        self._xx = self._xx * KEPT + size * size
        self._xy = self._xy * KEPT + size * duration_s

    def estimate_s(self, num_batches: int, size: float) -> float:
        """Seconds of `num_batches` that hold `size` together; 0 before anything was measured.

        Where all batches were alike, their size explains nothing, and a batch is taken to last as they did.
        """
        if not self._weight:
            return 0.0
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x**2
        per_unit = 0.0
        if variance > (0.05 * mean_x) ** 2:
            per_unit = (self._xy / self._weight - mean_x * mean_y) / variance
            per_unit = min(max(per_unit, 0.0), mean_y / mean_x)
        return num_batches * (mean_y - per_unit * mean_x) + per_unit * size

    def at_pace_s(self, size: float) -> float:
        """Seconds of this size at the pace of late, whatever batches it is cut into; 0 before anything was measured."""
        return size * self._y / self._x if self._x else 0.0


class BatchForecast:
    """Of a lane that runs one batch after the other."""

    def __init__(self, limits: QueueLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._times = BatchTimes()
        self._running: tuple[float, int] | None = None  # since when, and its size

    def begin(self, jobs: Sequence[AnyJob]) -> None:
        self._running = self._clock(), sum(job.size for job in jobs)

    def end(self) -> None:
        """The batch that began last is done."""
        assert self._running is not None
        since, size = self._running
        self._times.record(size, self._clock() - since)
        self._running = None

    def completion_s(self, waiting: Sequence[AnyJob], job: AnyJob | None = None) -> float:
        jobs = [*waiting] if job is None else [*waiting, job]
        running = self._running
        if not jobs or (running is None and not waiting):
            return 0.0
        remaining_s = 0.0
        if running is not None:
            since, size = running
            remaining_s = max(0.0, self._times.estimate_s(1, size) - (self._clock() - since))
        size = sum(each.size for each in jobs)
        # How much of a batch's time is fixed is a guess, and into how many batches all this is cut another.
        return remaining_s + max(self._times.estimate_s(self._num_batches(jobs), size), self._times.at_pace_s(size))

    def batch_s(self, size: int) -> float:
        return self._times.estimate_s(1, size)

    def _num_batches(self, jobs: Sequence[AnyJob]) -> int:
        num_rows = sum(job.num_rows for job in jobs)
        padded = sum(job.num_rows * job.longest for job in jobs)
        share = max(num_rows / self._limits.max_batch_rows, padded / self._limits.max_batch_tokens)
        return max(1, math.ceil(share))


class TextForecast:
    """Of a lane whose texts run side by side, a step at a time."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._num_running = 0
        self._step_s = _Fading()
        self._admission_s = _Fading()
        self._length = _Fading()

    def note_step(self, duration_s: float, num_running: int) -> None:
        """One step was taken, after which so many texts run."""
        self._step_s.add(duration_s)
        self._num_running = num_running

    def note_admission(self, duration_s: float, num_running: int) -> None:
        self._admission_s.add(duration_s)
        self._num_running = num_running

    def note_text(self, num_steps: int) -> None:
        """A text ended after so many steps."""
        self._length.add(num_steps)

    def completion_s(self, waiting: Sequence[AnyJob], job: AnyJob | None = None) -> float:
        num_jobs = len(waiting) + (job is not None)
        if not num_jobs or not (waiting or self._num_running):
            return 0.0
        text_s = self._length.mean * self._step_s.mean
        num_queued = max(0, num_jobs - (self._num_rows - self._num_running))
        return self._admission_s.mean + num_queued / self._num_rows * text_s + self._own_s(job)

    def batch_s(self, size: int) -> float:  # noqa: ARG002  # texts that join leave when they end
        return 0.0

    def _own_s(self, job: AnyJob | None) -> float:
        """A text may be shorter than those before it, if it may not be as long."""
        length = self._length.mean
        if job is not None:
            length = min(length, job.plan.max_new_tokens)
        return length * self._step_s.mean


class _Fading:
    """A mean in which the past fades; 0 before the first value."""

    def __init__(self) -> None:
        self.mean = 0.0
        self._is_empty = True

    def add(self, value: float) -> None:
        self.mean = value if self._is_empty else KEPT * self.mean + (1 - KEPT) * value
        self._is_empty = False
