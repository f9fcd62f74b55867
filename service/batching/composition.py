"""Which waiting jobs run together.

A batch is filled in the queue's order within its budget. While one client bursts, its jobs lengthen the batch only a
little, because others wait for its end; the others' jobs stay in it. Jobs that are left out keep their places, so they
come first in the next batch: nobody gets ahead of a fair share by more than one full batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from service.batching.forecast import Forecast
from service.batching.job import AnyJob

J = TypeVar("J", bound=AnyJob)

BATCH_SHARE = 0.2
"""Longest duration of a batch, as a share of the shortest time budget of its jobs."""

BURST_GROWTH = 1.6
"""Longest duration of a batch relative to its first job alone, during one client's burst."""

SHARED_GROWTH = 1.25
"""Longest duration of a batch with jobs of the client that bursts, relative to the others' jobs in it."""

LEAST_SAVING = 0.2
"""Share of a job's time alone that a batch must save, if the batch gets longer than BURST_GROWTH allows: on a device
that saves nothing by batches, those who wait together are better served one after another."""


@dataclass(frozen=True)
class BatchBudget:
    """Limits of one batch. The oldest job is taken even if it exceeds the tokens, unless no row is free."""

    max_rows: int
    max_tokens: int
    max_size: float = math.inf
    """Of all its jobs together, see Load.size."""

    def allows(self, num_rows: int, longest: int, size: int = 0) -> bool:
        """Whether this many rows, padded to `longest` tokens, are within the limits."""
        return num_rows <= self.max_rows and num_rows * longest <= self.max_tokens and size <= self.max_size

    def num_batches(self, num_rows: int, longest: int, size: int = 0) -> int:
        """Number of batches for this many rows, padded to `longest` tokens; each has one row at least."""
        most = min(self.max_rows, self.max_tokens // longest, num_rows * self.max_size / max(1, size))
        return math.ceil(num_rows / max(1, math.floor(most)))


def within_budget(
    jobs: Sequence[J], head: J, budget: BatchBudget, may_join: Callable[[Sequence[J], J], bool]
) -> list[J]:
    """The first job, then jobs of its group in order until one does not fit."""
    batch, num_rows, longest, size = [head], head.num_rows, head.longest, head.size
    for job in jobs:
        if job is head or job.group != head.group or not may_join(batch, job):
            continue
        num_rows, longest, size = num_rows + job.num_rows, max(longest, job.longest), size + job.size
        if not budget.allows(num_rows, longest, size):
            break
        batch.append(job)
    return batch


def extended(
    batch: Sequence[J],
    more: Sequence[J],
    forecast: Forecast,
    longest_s: float = math.inf,
    least_saving: float = math.inf,
) -> list[J]:
    """A batch with as many of the next jobs as take a share of their time budgets at most.

    It ends at `longest_s`, too, except for jobs of whose time alone it saves `least_saving`.
    """
    found = list(batch)
    size, shortest_s = sum(job.size for job in batch), min(job.time_budget_s for job in batch)
    for job in more:
        shortest_s = min(shortest_s, job.time_budget_s)
        duration_s, alone_s = forecast.batch_s(size + job.size), forecast.batch_s(job.size)
        is_saved = forecast.batch_s(size) + alone_s - duration_s >= least_saving * alone_s
        if duration_s > BATCH_SHARE * shortest_s or (duration_s > longest_s and not is_saved):
            break
        size += job.size
        found.append(job)
    return found


def beside_burst(batch: Sequence[J], forecast: Forecast, bursting: str) -> list[J]:
    """Of a batch, the first job, those of others, and as many of the client that bursts as they hardly notice."""
    head, *rest = batch
    longest_s = BURST_GROWTH * _known_s(forecast, [head])
    others = [job for job in rest if job.client.name != bursting]
    found = extended([head], others, forecast, longest_s, LEAST_SAVING)
    if others := [job for job in found if job.client.name != bursting]:
        longest_s = SHARED_GROWTH * _known_s(forecast, others)
    return extended(found, [job for job in rest if job.client.name == bursting], forecast, longest_s)


def _known_s(forecast: Forecast, batch: Sequence[J]) -> float:
    """Forecast of its duration; 0 if that cannot be told."""
    duration_s = forecast.batch_s(sum(job.size for job in batch))
    return duration_s if math.isfinite(duration_s) else 0.0
