"""Bookkeeping of a row stepper: which rows are taken by which texts, and what their steps share."""

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
    """The rows of a step and what is the same in each of their steps."""

    selection: RowSelection
    shared: S


class TextRows(Generic[S]):
    """Rows of a cache that texts occupy from `admit` to `release`. A selection is kept until rows change or move."""

    def __init__(
        self, network: Vip5Network, share: Callable[[RowSelection, list[Plan]], S], *, is_static: bool
    ) -> None:
        """`share` makes what the steps of a selection have in common, from the plan of each selected row.

        `is_static` runs every step over all rows there is room for, as RowCache has it.
        """
        self.cache = RowCache(network, is_static=is_static)
        self._share = share
        self._is_static = is_static
        self._plans: dict[int, Plan] = {}
        self._selected: SelectedRows[S] | None = None

    def admit(self, rows: Sequence[int], plans: Sequence[Plan], memory: Memory) -> None:
        """Begin texts in free rows, whose prompts have been read into a batch's memory."""
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
        """Make room for one more token of these rows, all of them admitted."""
        if self.cache.reserve_step():
            self._selected = None
        if self._selected is None or not (self._is_static or self._selected.selection.rows == tuple(rows)):
            selection = self.cache.select(rows)
            some = next(iter(self._plans.values()))  # read for a row that is free
            plans = [self._plans.get(row, some) for row in selection.rows]
            self._selected = SelectedRows(selection, self._share(selection, plans))
        return self._selected
