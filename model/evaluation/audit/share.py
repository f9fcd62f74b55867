"""How many of how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_NUM_NAMED = 3


@dataclass(frozen=True)
class Share:
    """A count, of what it is a part, and the first few that were counted, where they have names."""

    count: int
    of: int
    examples: tuple[str, ...] = ()

    @classmethod
    def named(cls, names: Sequence[str], of: int) -> Share:
        """The share of those that have these names."""
        return cls(len(names), of, tuple(names[:_NUM_NAMED]))

    @property
    def ratio(self) -> float | None:
        """None of nothing is no number."""
        return self.count / self.of if self.of else None
