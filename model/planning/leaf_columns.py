"""Catalog columns in the order of a trie's leaves: the number of each leaf's value, or of its values."""

# N items, as rows or leaves

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.columns import Scalar, in_one_chunk, numbers
from model.decoding.leaf_groups import LeafGroups
from model.decoding.trie import Trie
from model.errors import InputError, UnknownColumnError

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(_INTEGER.pattern + r"(\.[0-9]+)?([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, eq=False)
class LeafColumn:
    """The values of a column, numbered, and the numbers of each leaf."""

    kind: pa.DataType
    """Of one value, also for a column of lists."""
    numbers: Mapping[Scalar | None, int]
    groups: LeafGroups

    def sums(self, by_number: NDArray[np.float32]) -> NDArray[np.float32]:
        """For each leaf, the sum of its values' numbers in an array [values + 1], whose last is for none: [N]."""
        groups = self.groups
        found: NDArray[np.float32] = by_number[groups.groups]
        if groups.starts is None:
            return found
        lengths = np.diff(groups.starts)
        leaves = np.repeat(np.arange(len(lengths)), lengths)
        return np.bincount(leaves, weights=found, minlength=len(lengths)).astype(np.float32)


class LeafColumns:
    """The columns of one catalog, numbered when they are first asked for. Thread-safe."""

    def __init__(self, catalog: Catalog, trie: Trie) -> None:
        self._catalog = catalog
        self._trie = trie
        self._columns: dict[str, LeafColumn] = {}
        self._lock = threading.Lock()

    def kind_of(self, name: str, field: str) -> pa.DataType:
        """The type of a column's values. Raises UnknownColumnError, which names the field of the request."""
        if name not in self._catalog.attribute_columns:
            known = ", ".join(self._catalog.attribute_columns) or "none"
            raise UnknownColumnError(f"{field}: the catalog has no column {name!r}; choose from: {known}", field=field)
        return _kind_of(self._catalog.table.column(name).type)

    def of(self, name: str) -> LeafColumn:
        """A column that the catalog has."""
        with self._lock:
            if name not in self._columns:
                self._columns[name] = _numbered(self._catalog, self._trie, name)
            return self._columns[name]


def value_of(kind: pa.DataType, text: str, field: str) -> Scalar:
    """The value that a key of a JSON object means. Raises InputError if the column has values of another type."""
    if pa.types.is_string(kind):
        return text
    if pa.types.is_boolean(kind):
        if text in {"true", "false"}:
            return text == "true"
        raise InputError(f'{field}: {text!r} is not "true" or "false"; the column has booleans', field=field)
    is_integer = pa.types.is_integer(kind)
    if not (_INTEGER if is_integer else _NUMBER).fullmatch(text):
        what = "integers" if is_integer else "numbers"
        raise InputError(f"{field}: {text!r} is no number; the column has {what}", field=field)
    return int(text) if is_integer else float(text)


def _kind_of(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else kind


def _numbered(catalog: Catalog, trie: Trie, name: str) -> LeafColumn:
    column = in_one_chunk(catalog.table.column(name))
    is_list = pa.types.is_list(column.type)
    encoded = (pc.list_flatten(column) if is_list else column).dictionary_encode()
    own = numbers(encoded.indices, missing=-1)
    values: dict[Scalar | None, int] = {value: number for number, value in enumerate(encoded.dictionary.to_pylist())}
    kind = _kind_of(column.type)
    if not is_list:
        return LeafColumn(kind, values, LeafGroups(None, own[trie.rows_of_leaves]))
    leaves = trie.leaves_of_rows[np.asarray(pc.list_parent_indices(column), dtype=np.int64)].astype(np.int64)
    num_numbers = len(values) + 1  # with -1, which stands for none
    leaves, own = np.divmod(np.unique(leaves * num_numbers + own + 1), num_numbers)  # in order, each value once
    starts = np.concatenate([[0], np.cumsum(np.bincount(leaves, minlength=len(catalog)))])
    return LeafColumn(kind, values, LeafGroups(starts, (own - 1).astype(np.int32)))
