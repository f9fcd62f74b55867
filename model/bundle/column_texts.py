"""The texts of a column that stays in Arrow's buffers, which may be mapped: a Python string is made when it is read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeVar, cast, overload

import pyarrow as pa

from model.bundle.columns import Column

MOST_HELD = 1 << 15
"""Columns up to this length become tuples, which are read five times as fast."""

_PIECE_ROWS = 8192

Text = TypeVar("Text", str, "str | None")


class ColumnTexts(Sequence[Text]):
    """Values of a string column, [N]; slices are tuples."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._ends = list(accumulate(len(chunk) for chunk in self._chunks))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, row: int) -> Text: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[Text, ...]: ...
    def __getitem__(self, row: int | slice) -> Text | tuple[Text, ...]:
        if isinstance(row, slice):
            return tuple(self[each] for each in range(*row.indices(len(self))))
        place = row + len(self) if row < 0 else row
        if not 0 <= place < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        chunk = bisect_right(self._ends, place)
        start = self._ends[chunk - 1] if chunk else 0
        return cast("Text", self._chunks[chunk][place - start].as_py())

    def __iter__(self) -> Iterator[Text]:
        for chunk in self._chunks:
            for start in range(0, len(chunk), _PIECE_ROWS):
                yield from cast("list[Text]", chunk.slice(start, _PIECE_ROWS).to_pylist())


def texts_of(column: Column) -> Sequence[str]:
    """The values of a string column without nulls."""
    return ColumnTexts[str](column) if len(column) > MOST_HELD else tuple(cast("list[str]", column.to_pylist()))


def as_column(texts: Sequence[str]) -> Column:
    """Texts as a column, which those of `texts_of` may be already."""
    if isinstance(texts, ColumnTexts):
        return texts.column.cast(pa.string())
    return pa.chunked_array([pa.array(texts, type=pa.string())])


def optional_texts_of(column: Column) -> Sequence[str | None]:
    """The values of a string column."""
    return ColumnTexts["str | None"](column) if len(column) > MOST_HELD else tuple(column.to_pylist())
