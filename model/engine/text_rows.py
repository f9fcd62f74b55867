"""Bookkeeping of row steppers: the texts in the rows of a cache, and the inputs that their steps share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from model.engine.plans import Plan
from model.network.network import Vip5Network
from model.network.row_cache import RowCache, RowSelection
from model.network.stacks import Memory

S = TypeVar("S")


@dataclass(frozen=True)
class SelectedRows(Generic[S]):
    """The rows of a step, with the inputs that are the same in each step."""

    selection: RowSelection
    shared: S


class TextRows(Generic[S]):
    """Rows of a cache, occupied by texts from `admit` to `release`. Caches the last selection of rows."""

    def __init__(
        self, network: Vip5Network, share: Callable[[RowSelection, list[Plan]], S], *, is_static: bool
    ) -> None:
        """`share` computes the shared inputs of a selection, given the plan of each selected row.

        With `is_static` each step runs over all rows of the cache, see RowCache.
        """
        self.cache = RowCache(network, is_static=is_static)
        self._share = share
        self._is_static = is_static
        self._plans: dict[int, Plan] = {}
        self._selected: SelectedRows[S] | None = None

    def admit(self, rows: Sequence[int], plans: Sequence[Plan], memory: Memory) -> None:
        """Begin texts in free rows, with the encoded prompts of one batch."""
        self.cache.occupy(rows, memory, [plan.longest for plan in plans])
        self._plans.update(zip(rows, plans, strict=True))
        self._selected = None

    def release(self, row: int) -> None:
        del self._plans[row]
        self.cache.vacate(row)
        if not self._plans:
            self.cache.release()
            self._selected = None

    def select(self, rows: Sequence[int]) -> SelectedRows[S]:
        """Reserve space for the next token of these rows, all of them admitted."""
        if self.cache.reserve_step():
            self._selected = None
        if self._selected is None or not (self._is_static or self._selected.selection.rows == tuple(rows)):
            selection = self.cache.select(rows)
            placeholder = next(iter(self._plans.values()))  # for free rows of a static cache
            plans = [self._plans.get(row, placeholder) for row in selection.rows]
            self._selected = SelectedRows(selection, self._share(selection, plans))
        return self._selected
