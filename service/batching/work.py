"""How much work a number of jobs are together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

from service.batching.job import Load


class Work(NamedTuple):
    """A sum of loads, as far as forecasts need it."""

    num_jobs: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    """Of all rows, each padded to the longest of its own job."""
    size: int = 0

    @classmethod
    def of(cls, loads: Iterable[Load]) -> Self:
        num_jobs = num_rows = num_tokens = size = 0
        for each in loads:
            rows = each.num_rows
            num_jobs += 1
            num_rows += rows
            num_tokens += rows * each.longest
            size += each.size
        return cls(num_jobs, num_rows, num_tokens, size)

    def with_one(self, load: Load) -> Work:
        """With one more, which every admission asks for."""
        num_jobs, num_rows, num_tokens, size = self
        rows = load.num_rows
        return Work(num_jobs + 1, num_rows + rows, num_tokens + rows * load.longest, size + load.size)

    def plus(self, other: Work) -> Work:
        jobs, rows, tokens, size = other
        return Work(self.num_jobs + jobs, self.num_rows + rows, self.num_tokens + tokens, self.size + size)

    def minus(self, other: Work) -> Work:
        jobs, rows, tokens, size = other
        return Work(self.num_jobs - jobs, self.num_rows - rows, self.num_tokens - tokens, self.size - size)


NO_WORK = Work()
