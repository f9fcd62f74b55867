"""Columns of catalog.parquet and users.parquet: their types, and conversion from other types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.bundle.likely_names import hint
from model.errors import CatalogError, InputError

Scalar: TypeAlias = str | int | float | bool
Column: TypeAlias = "pa.ChunkedArray[Any]"
Values: TypeAlias = "pa.Array[Any]"
AttributeValue: TypeAlias = Scalar | tuple[Scalar, ...] | None

_EXACT_FLOAT = 1 << 53  # floats are exact integers below
_KIND_NAMES = {str: "strings", int: "integers", float: "numbers", bool: "booleans"}


def text_column(table: pa.Table, name: str, where: str) -> Column:
    """A column as strings; integers are accepted. Raises CatalogError for other types."""
    column = _plain(table.column(name))
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise CatalogError(f"{where}: column {name} has type {kind}; it must be strings")
    return column.cast(pa.string())


def optional_text_column(table: pa.Table, name: str, where: str) -> Column:
    """Like `text_column`, but all null if the table has no such column."""
    return (
        text_column(table, name, where)
        if name in table.column_names
        else column_or_nulls(table, name).cast(pa.string())
    )


def column_or_nulls(table: pa.Table, name: str) -> Column:
    return table.column(name) if name in table.column_names else pa.chunked_array([pa.nulls(table.num_rows)])


def strings(column: Column) -> list[str]:
    """The values of a string column without nulls."""
    return cast("list[str]", column.to_pylist())


def in_one_chunk(column: Column) -> Values:
    """The values in one array, without a copy where they are in one already."""
    return column.chunks[0] if column.num_chunks == 1 else column.combine_chunks()


def numbers(column: Column | Values, missing: int) -> NDArray[np.int32]:
    """An int32 column, [N], with `missing` for nulls; like `booleans` without Arrow's own conversion."""
    filled_in = column.fill_null(pa.scalar(missing, pa.int32()))
    parts = [_content_of(chunk).view(np.int32) for chunk in _chunks_of(filled_in)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def booleans(column: Column | Values) -> NDArray[np.bool_]:
    """A boolean column without nulls, [N]. Arrow's own conversion imports pandas where that is installed."""
    parts = [_content_of(chunk) for chunk in _chunks_of(column.cast(pa.uint8()))]
    return np.concatenate(parts).view(np.bool_) if parts else np.zeros(0, np.bool_)


def _chunks_of(column: Column | Values) -> list[Values]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _content_of(values: Values) -> NDArray[np.uint8]:
    """The bytes of values of a fixed width."""
    _, content = values.buffers()
    if content is None:
        return np.zeros(0, np.uint8)
    width = values.type.byte_width
    return np.frombuffer(memoryview(content), np.uint8, len(values) * width, values.offset * width)


def filled(column: Column) -> Column:
    """A string column with nulls replaced by empty strings."""
    return column.cast(pa.string()).fill_null(pa.scalar(""))


def name_column(table: pa.Table, name: str, where: str) -> Column:
    """A column of strings that are all there and not empty. Raises CatalogError naming the first row at fault."""
    if name not in table.column_names:
        meant = hint(table.column_names, [name])
        raise CatalogError(
            f"{where} has no column {name}; its columns are {', '.join(table.column_names) or 'none'}"
            + (f". {meant}" if meant else "")
        )
    column = _of_whole_floats(table.column(name), name, where)
    column = text_column(table, name, where) if column is None else column
    row = pc.index(pc.utf8_trim_whitespace(filled(column)), "").as_py()
    if row >= 0:
        raise CatalogError(f"{where}: row {row + 1} has no {name}; give each row one")
    return column


def _of_whole_floats(column: Column, name: str, where: str) -> Column | None:
    """A column of floats, which pandas makes of integers beside gaps, as texts: 7.0 is `7`; None for other types."""
    if not pa.types.is_floating(column.type):
        return None
    values = cast("list[float]", pc.drop_null(column).to_pylist())
    other = next((value for value in values if not value.is_integer() or abs(value) >= _EXACT_FLOAT), None)
    if other is not None:
        raise CatalogError(f"{where}: column {name} has type {column.type}; it must be strings ({other!r} is no id)")
    return column.cast(pa.int64()).cast(pa.string())


def require_unique(column: Column, name: str, where: str) -> None:
    """Raise CatalogError naming a value that occurs in two rows."""
    if pc.count_distinct(column).as_py() == len(column):
        return
    ((repeated, count),) = Counter(column.to_pylist()).most_common(1)
    raise CatalogError(f"{where}: {name} {repeated!r} occurs in {count} rows; it must be unique")


def attribute_column(table: pa.Table, name: str, where: str) -> Column:
    """A column of strings, integers, floats or booleans, or of lists of one of them."""
    column = _plain(table.column(name))
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    element = _stored_type(kind.value_type if is_list else kind)
    if element is None:
        raise CatalogError(
            f"{where}: column {name} has type {kind}; columns are strings, numbers, booleans, or lists of one of them: "
            "convert the column or remove it"
        )
    try:
        return column.cast(pa.list_(element) if is_list else element)
    except pa.ArrowInvalid as error:
        raise CatalogError(f"{where}: column {name} of type {kind} cannot be stored as {element}: {error}") from error


def value_set(column: str, kind: pa.DataType, values: Sequence[Scalar]) -> Values:
    """Values to look for in a column. Raises InputError for a value of a different type than the column's."""
    due = _python_type(kind)
    accepted = (int, float) if due is float else (due,)
    for value in values:
        if type(value) not in accepted:
            raise InputError(
                f"where.{column}: {value!r} has the wrong type; the column has {_KIND_NAMES[due]}",
                field=f"where.{column}",
            )
    try:
        return pa.array([due(value) for value in values], type=kind)
    except (ValueError, OverflowError) as error:
        raise InputError(f"where.{column}: a value is out of range: {error}", field=f"where.{column}") from error


def _plain(column: Column) -> Column:
    """Without dictionary encoding, and with Arrow's default string type."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    return None


def _python_type(kind: pa.DataType) -> type[str | int | float | bool]:
    if pa.types.is_boolean(kind):
        return bool
    if pa.types.is_integer(kind):
        return int
    return float if pa.types.is_floating(kind) else str
