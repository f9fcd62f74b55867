"""Counts with their totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_NUM_NAMED = 3


@dataclass(frozen=True)
class Share:
    """A count, its total, and the first names that were counted."""

    count: int
    of: int
    examples: tuple[str, ...] = ()

    @classmethod
    def named(cls, names: Sequence[str], of: int) -> Share:
        """The share of the items or users with these names."""
        return cls(len(names), of, tuple(names[:_NUM_NAMED]))

    @property
    def ratio(self) -> float | None:
        """None if the total is 0."""
        return self.count / self.of if self.of else None
