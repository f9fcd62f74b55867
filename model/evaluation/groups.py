"""Groups of questions, by a column of the items or of a table about users.

A question belongs to the group of the user who asks, or of the item that the user bought.
"""

# N items and U users of the dataset, Q questions

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.bundle.columns import Column, require_unique, strings, text_column
from model.bundle.tables import read_source
from model.datasets.dataset import Dataset
from model.errors import InputError
from model.evaluation.held_out import Rows

MOST_GROUPS = 20
_USER_ID = "user_id"
_NUM_PARTS = 4  # of a column with many numbers


@dataclass(frozen=True, eq=False)
class Grouping:
    """The group of each user or item, as a place in `values`; -1 for those without a value."""

    column: str
    is_of_users: bool
    values: tuple[str, ...]
    codes: Rows  # [U] or [N]

    @classmethod
    def of(cls, dataset: Dataset, column: str, table: str | None) -> Grouping:
        """By a column of the dataset's items, or of a table about users, a file with `user_id`.

        Raises InputError for a column that is not there, or whose values make no groups.
        """
        is_of_users = table is not None
        values = _column_of_items(dataset, column) if table is None else _column_of_users(dataset, column, Path(table))
        names, codes = _grouped(values, column)
        return cls(column, is_of_users, names, codes)

    def of_questions(self, users: Rows, items: Rows) -> Rows:
        """The group of each question [Q], by its user and the item that was bought (rows of the dataset)."""
        return self.codes[users if self.is_of_users else items]


def _column_of_items(dataset: Dataset, column: str) -> Column:
    known = dataset.catalog.attribute_columns
    if column not in known:
        raise InputError(
            f"the items of {dataset.provenance.name} have no column {column!r}; choose from "
            f"{', '.join(known) or 'none'}, or give a table about users with it",
            field="groups",
        )
    return dataset.catalog.table.column(column)


def _column_of_users(dataset: Dataset, column: str, path: Path) -> Column:
    """The values of the dataset's users in their order; null for users that the table lacks."""
    table = read_source(path)
    missing = [name for name in (_USER_ID, column) if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(table.column_names) or 'none'}, and needs "
            f"{_USER_ID} and {column}",
            field="groups",
        )
    ids = text_column(table, _USER_ID, str(path))
    require_unique(ids, _USER_ID, str(path))
    row_of = {user_id: row for row, user_id in enumerate(strings(ids))}
    rows = [row_of.get(user_id) for user_id in strings(dataset.users.table.column(_USER_ID))]
    if all(row is None for row in rows):
        raise InputError(
            f"{path} has none of the users of {dataset.provenance.name}, such as "
            f"{dataset.users.table.column(_USER_ID)[0]}; check its {_USER_ID}",
            field="groups",
        )
    return table.column(column).take(pa.array(rows, pa.int64()))


def _grouped(values: Column, column: str) -> tuple[tuple[str, ...], Rows]:
    """Names of groups, and the group of each row."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_struct(kind):
        raise InputError(f"column {column} has type {kind}; groups need a column with one value", field="groups")
    distinct = pc.unique(values.drop_null())
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if is_number and len(distinct) > MOST_GROUPS:
        return _parts(values.cast(pa.float64()).to_numpy())
    if not 1 < len(distinct) <= MOST_GROUPS:
        raise InputError(
            f"column {column} has {len(distinct)} values; choose one with 2 to {MOST_GROUPS}, or many numbers",
            field="groups",
        )
    ordered = distinct.sort()
    names = tuple(_name(value) for value in ordered.to_pylist())
    return names, pc.index_in(values, value_set=ordered).fill_null(-1).to_numpy().astype(np.int64)


def _parts(numbers: NDArray[np.float64]) -> tuple[tuple[str, ...], Rows]:
    """Four parts of about as many rows each; fewer if one number is frequent. NaN is no value."""
    is_known = ~np.isnan(numbers)
    steps = np.arange(1, _NUM_PARTS) / _NUM_PARTS
    edges = np.unique(np.quantile(numbers[is_known], steps))
    edges = edges[edges < numbers[is_known].max()]
    bounds = [f"{edge:.6g}" for edge in edges]
    codes = np.where(is_known, np.searchsorted(edges, numbers), -1)
    return _names_of_parts(bounds), codes


def _names_of_parts(bounds: Sequence[str]) -> tuple[str, ...]:
    between = [f"over {low} to {high}" for low, high in pairwise(bounds)]
    return (f"up to {bounds[0]}", *between, f"over {bounds[-1]}")


def _name(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
