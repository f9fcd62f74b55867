"""The items of a domain: their ids, the identifiers that the model generates, and their attributes."""

# N items; a row is an item's position in the catalog.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.bundle.column_texts import MOST_HELD, optional_texts_of, texts_of
from model.bundle.columns import (
    AttributeValue,
    Column,
    Scalar,
    attribute_column,
    booleans,
    column_or_nulls,
    in_one_chunk,
    name_column,
    optional_text_column,
    require_unique,
    value_set,
)
from model.bundle.hashed_ids import GrownIds, RowsById
from model.bundle.opened_file import Content
from model.bundle.tables import matching_rows, parse_bundled_parquet, read_bundled_parquet, table_of, write_parquet
from model.errors import CatalogError, UnknownColumnError

STANDARD_COLUMNS = ("item_id", "index", "title", "image", "active")
TRAINING_INTERACTIONS = "training_interactions"
"""An optional column that answers do not show: how often the items occur in the sequences that were trained on."""
_DERIVED = {
    "item_ids": "item_id",
    "_rows": "item_id",
    "indices": "index",
    "titles": "title",
    "images": "image",
    "is_active": "active",
}
"""Cached properties, and the columns that they are computed from."""


@dataclass(frozen=True)
class _Held:
    """Values of attribute columns, by row."""

    values: dict[str, list[AttributeValue]]


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items in a fixed order. Create one with `from_rows`, `from_table` or `read`, which check the columns.

    The columns of a large catalog stay in Arrow's buffers, which may be mapped from an index (`index/`).
    """

    table: pa.Table
    ids: RowsById | None = None
    """Rows by item id, if they are known already."""

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object]]) -> Catalog:
        """From one mapping per item, with at least `item_id` and `index`."""
        return cls.from_table(table_of(rows, "the catalog"), "the catalog")

    @classmethod
    def from_table(cls, table: pa.Table, where: str) -> Catalog:
        """Convert columns to their stored types; raises CatalogError naming `where`, the column and the rule."""
        if table.num_rows == 0:
            raise CatalogError(f"{where} has no items; give at least one")
        columns = {name: name_column(table, name, where) for name in ("item_id", "index")}
        require_unique(columns["item_id"], "item_id", where)
        for name in ("title", "image"):
            columns[name] = optional_text_column(table, name, where)
        columns["active"] = _active_column(table, where)
        for name in table.column_names:
            if name not in STANDARD_COLUMNS:
                columns[name] = attribute_column(table, name, where)
        _check_counts(columns, where)
        return cls(pa.table(columns))

    @classmethod
    def read(cls, path: Path, where: str = "catalog.parquet") -> Catalog:
        """Read catalog.parquet; error messages call it `where`."""
        return cls.from_table(read_bundled_parquet(path, where), where)

    @classmethod
    def parse(cls, content: Content, where: str = "catalog.parquet") -> Catalog:
        """Like `read`, from the content of the file."""
        return cls.from_table(parse_bundled_parquet(content, where), where)

    def write(self, path: Path) -> None:
        write_parquet(path, self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def item_ids(self) -> Sequence[str]:
        return texts_of(self.table.column("item_id"))

    @cached_property
    def indices(self) -> Sequence[str]:
        """The identifier texts."""
        return texts_of(self.table.column("index"))

    @cached_property
    def titles(self) -> Sequence[str | None]:
        return optional_texts_of(self.table.column("title"))

    @cached_property
    def images(self) -> Sequence[str | None]:
        return optional_texts_of(self.table.column("image"))

    @cached_property
    def is_active(self) -> NDArray[np.bool_]:
        """[N]; inactive items are never returned, but may be in a history."""
        return booleans(self.table.column("active"))

    @cached_property
    def attribute_columns(self) -> tuple[str, ...]:
        """Columns to filter by, including `category`."""
        apart = (*STANDARD_COLUMNS, TRAINING_INTERACTIONS)
        return tuple(name for name in self.table.column_names if name not in apart)

    def with_columns(self, columns: Mapping[str, Column]) -> Catalog:
        """The same items with some columns replaced, of the same types; cached properties of other columns are kept."""
        table = self.table
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), name, column)
        changed = Catalog(table, self.ids)
        kept = {name: self.__dict__[name] for name in _DERIVED.keys() & self.__dict__.keys()}
        changed.__dict__.update({name: value for name, value in kept.items() if _DERIVED[name] not in columns})
        return changed

    def counted(self, num_interactions: NDArray[np.int64]) -> Catalog:
        """The same items with the number of each one's training interactions, [N]."""
        counts: Column = pa.chunked_array([pa.array(num_interactions, pa.int64())])
        if TRAINING_INTERACTIONS in self.table.column_names:
            return self.with_columns({TRAINING_INTERACTIONS: counts})
        return Catalog(self.table.append_column(TRAINING_INTERACTIONS, counts), self.ids)

    def followed_by(self, more: Catalog) -> Catalog:
        """These items, then others of the same columns with other ids. Copies neither's columns."""
        start = len(self)
        added = {item_id: start + row for row, item_id in enumerate(more.item_ids)}
        return Catalog(pa.concat_tables([self.table, more.table]), GrownIds.of(self._rows, added))

    def row_of(self, item_id: str) -> int | None:
        return self._rows.get(item_id)

    def attributes(self, row: int) -> dict[str, AttributeValue]:
        """An item's values in all attribute columns, lists as tuples."""
        if isinstance(self._attributes, _Held):
            return {name: values[row] for name, values in self._attributes.values.items()}
        return {name: _value_of(column[row].as_py()) for name, column in self._attributes.items()}

    def mask(self, where: Mapping[str, tuple[Scalar, ...]]) -> NDArray[np.bool_]:
        """Items with one of the given values in each of the given columns, [N].

        A list matches if any of its elements does; a missing value never matches. Raises UnknownColumnError, and
        InputError for a value of a different type than the column's.
        """
        is_member = np.ones(len(self), dtype=np.bool_)
        for column, values in where.items():
            if column not in self.attribute_columns:
                known = ", ".join(self.attribute_columns) or "none"
                raise UnknownColumnError(
                    f"the catalog has no column {column!r} to filter by; choose from: {known}", field=f"where.{column}"
                )
            is_member &= self._column_mask(column, values)
        return is_member

    def search(
        self, text: str, offset: int, limit: int, where: Mapping[str, tuple[Scalar, ...]] | None = None
    ) -> tuple[list[int], int]:
        """One page of the rows whose item_id or title contains `text`, ignoring case, and the number of all.

        With `where`, only rows that `mask` admits; raises as it does.
        """
        if not where:
            return matching_rows(self.table, ("item_id", "title"), text, offset, limit)
        matching, _ = matching_rows(self.table, ("item_id", "title"), text, 0, len(self))
        rows = np.asarray(matching, dtype=np.int64)
        rows = rows[self.mask(where)[rows]]
        return rows[offset : offset + limit].tolist(), len(rows)

    def values(self, name: str, limit: int) -> tuple[list[tuple[Scalar, int]], int]:
        """The most frequent values of an attribute column with their numbers of items, and the number of all values."""
        column = self.table.column(name).combine_chunks()
        elements = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        counts = pc.value_counts(elements.drop_null())
        pairs = zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
        found = [(value, number) for value, number in pairs if value is not None and number is not None]
        return sorted(found, key=lambda each: (-each[1], str(each[0])))[:limit], len(found)

    @cached_property
    def _attributes(self) -> _Held | dict[str, Column]:
        """Those of a small catalog as Python's objects, which are read ten times as fast."""
        columns = {name: self.table.column(name) for name in self.attribute_columns}
        if len(self) > MOST_HELD:
            return columns
        return _Held({name: [_value_of(value) for value in column.to_pylist()] for name, column in columns.items()})

    @cached_property
    def _rows(self) -> RowsById:
        """A small catalog's are a dictionary, which is several times as fast."""
        if self.ids is not None and (len(self) > MOST_HELD or isinstance(self.ids, GrownIds)):
            return self.ids
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def _column_mask(self, name: str, values: tuple[Scalar, ...]) -> NDArray[np.bool_]:
        column = self.table.column(name)
        if not pa.types.is_list(column.type):
            return booleans(pc.is_in(column, value_set(name, column.type, values)))
        lists = in_one_chunk(column)
        is_match = booleans(pc.is_in(pc.list_flatten(lists), value_set(name, column.type.value_type, values)))
        is_member = np.zeros(len(self), dtype=np.bool_)
        is_member[np.asarray(pc.list_parent_indices(lists))[is_match]] = True
        return is_member


def _value_of(value: Any) -> AttributeValue:  # noqa: ANN401  # of a column
    return tuple(value) if isinstance(value, list) else value


def _active_column(table: pa.Table, where: str) -> Column:
    """Items are active by default."""
    column = column_or_nulls(table, "active")
    if not (pa.types.is_boolean(column.type) or pa.types.is_null(column.type)):
        raise CatalogError(f"{where}: column active has type {column.type}; it must be boolean")
    return column.cast(pa.bool_()).fill_null(pa.scalar(value=True))


def _check_counts(columns: Mapping[str, Column], where: str) -> None:
    counts = columns.get(TRAINING_INTERACTIONS)
    if counts is not None and not pa.types.is_integer(counts.type):
        raise CatalogError(
            f"{where}: column {TRAINING_INTERACTIONS} has type {counts.type}; it must be the whole numbers of items' "
            "training interactions: rename a column that means something else"
        )
