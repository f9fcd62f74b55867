"""Changes of a catalog while it is served: which items are active, their values, and new items.

Changes accumulate: all changes of a domain are kept together and applied to whatever bundle it is served from.
"""

# N items; a row is an item's position in the catalog.

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from model.bundle.catalog import STANDARD_COLUMNS, Catalog
from model.bundle.column_texts import MOST_HELD
from model.bundle.columns import Column, Scalar, Values
from model.bundle.domain_files import DomainFiles
from model.bundle.identifiers import tokenise_identifiers
from model.errors import CatalogError, InputError, UnknownItemError
from model.prompts.assembly import TokenRows
from model.prompts.prompt import Ids
from model.prompts.tokenizer import TextTokenizer

logger = logging.getLogger(__name__)

Cell: TypeAlias = Scalar | list[Scalar] | None
Row: TypeAlias = Mapping[str, Cell]

_MOST_SPLICED = 256
"""New values of a large column up to this number share the rest of the column; it is copied for more."""

FIXED_COLUMNS = ("item_id", "index", "active")


@dataclass(frozen=True)
class CatalogChanges:
    """New values of some items; everything else is as in the bundle."""

    active: Mapping[str, bool] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)  # by item, then by column
    added: tuple[Row, ...] = ()

    def then(self, later: CatalogChanges) -> CatalogChanges:
        """Both changes combined; where they overlap, the later ones apply."""
        values = dict(self.values)
        for item_id, cells in later.values.items():
            values[item_id] = {**values.get(item_id, {}), **cells}
        return CatalogChanges(
            active={**self.active, **later.active} if later.active else self.active,
            values=values if later.values else self.values,
            added=self.added + later.added if later.added else self.added,
        )


def check_changes(files: DomainFiles, catalog: Catalog, changes: CatalogChanges, tokenizer: TextTokenizer) -> None:
    """Raise UnknownItemError, InputError or CatalogError, naming item, column and rule, unless the changes fit.

    `files` are those of the catalog's items.
    """
    added = {str(row.get("item_id")) for row in changes.added}
    for where, item_ids in (("active", changes.active), ("set", changes.values)):
        for item_id in item_ids:
            if catalog.row_of(item_id) is None and item_id not in added:
                raise UnknownItemError(f"item {item_id!r} is not in the catalog; add it first", field=where)
    for item_id, cells in changes.values.items():
        for name, cell in cells.items():
            _check_settable(catalog, name, f"set.{item_id}")
            _cells(catalog, name, [cell], f"set.{item_id}")
    if changes.added:
        for row in changes.added:
            if catalog.row_of(str(row.get("item_id"))) is not None:
                raise CatalogError(f"add: item {row.get('item_id')!r} is in the catalog already; use set to change it")
        _new_items(files, changes.added, tokenizer)


def with_added(files: DomainFiles, changes: CatalogChanges, tokenizer: TextTokenizer) -> DomainFiles:
    """The domain with the added items.

    Items that the bundle has already stay as they are. Items that do not fit, such as one whose index the bundle uses
    for another item, are skipped and logged: a change made to one bundle must not prevent another from being served.
    """
    rows = [row for row in changes.added if files.catalog.row_of(str(row["item_id"])) is None]
    try:
        return _extended(files, rows, tokenizer) if rows else files
    except (CatalogError, InputError):
        for row in rows:
            try:
                files = _extended(files, [row], tokenizer)
            except (CatalogError, InputError) as error:
                reason = {"domain": files.spec.name, "item_id": row["item_id"], "reason": str(error)}
                logger.warning("added_item_left_out", extra=reason)
        return files


def with_values(catalog: Catalog, changes: CatalogChanges) -> Catalog:
    """The catalog with the changes of its own items and columns; changes of others are skipped."""
    columns: dict[str, Column] = {}
    by_column: dict[str, dict[int, Cell]] = {}
    for item_id, cells in changes.values.items():
        row = catalog.row_of(item_id)
        if row is None:
            continue
        for name, cell in cells.items():
            if name in catalog.table.column_names:
                by_column.setdefault(name, {})[row] = cell
    for name, cell_of_row in by_column.items():
        try:
            columns[name] = _with_cells(catalog, name, cell_of_row)
        except InputError as error:  # the column has a different type in this bundle
            logger.warning("values_left_out", extra={"column": name, "reason": str(error)})
    found = [(catalog.row_of(item_id), is_active) for item_id, is_active in changes.active.items()]
    active_of_row = {row: is_active for row, is_active in found if row is not None}
    if active_of_row:
        is_active = catalog.is_active.copy()
        is_active[list(active_of_row)] = list(active_of_row.values())
        columns["active"] = pa.chunked_array([pa.array(is_active)])
    return catalog.with_columns(columns) if columns else catalog


def _extended(files: DomainFiles, rows: list[Row], tokenizer: TextTokenizer) -> DomainFiles:
    """The files with more items; columns are shared, token rows copied, and a compiled trie is built again."""
    more, tokens = _new_items(files, rows, tokenizer)
    identifiers = TokenRows.joined([files.identifiers, tokens])
    compiled = files.compiled and files.compiled.grown(identifiers, more.indices, tokenizer)
    grown = files.catalog.followed_by(more)
    return replace(files, catalog=grown, identifiers=identifiers, compiled=compiled, index=None)


def _new_items(files: DomainFiles, rows: Sequence[Row], tokenizer: TextTokenizer) -> tuple[Catalog, TokenRows]:
    """The items of the rows, and their identifiers. Raises CatalogError and InputError if the catalog refuses them."""
    catalog = files.catalog
    for number, row in enumerate(rows, start=1):
        for name in ("item_id", "index"):
            value = row.get(name)
            if not isinstance(value, str) or not value.strip():
                raise CatalogError(f"add: row {number} has no {name}; give each row one, a string")
        for name in row:
            if name not in STANDARD_COLUMNS:
                _check_settable(catalog, name, f"add: row {number}")
    columns = {name: _cells(catalog, name, [_cell(row, name) for row in rows], "add") for name in _names(catalog)}
    more = Catalog.from_table(pa.table(columns), "add")
    twice = next((item_id for item_id in more.item_ids if catalog.row_of(item_id) is not None), None)
    if twice is not None:
        raise CatalogError(f"add: item_id {twice!r} occurs in 2 rows; it must be unique")
    tokens = tokenise_identifiers(more.indices, more.item_ids, tokenizer, "add")
    is_used = _use_of_identifiers(files, tokenizer)
    for place, (item_id, index) in enumerate(zip(more.item_ids, more.indices, strict=True)):
        if is_used(tokens.row(place)):
            raise CatalogError(
                f"add: the index {index!r} of item {item_id!r} belongs to another item; choose an unused one"
            )
    return more, tokens


def _use_of_identifiers(files: DomainFiles, tokenizer: TextTokenizer) -> Callable[[Ids], bool]:
    """Whether an item has an identifier; told by the trie if there is one, which takes as many steps as tokens."""
    if files.compiled is not None:
        trie = files.compiled.trie
        return lambda tokens: trie.has([*tokens.tolist(), tokenizer.eos_id])
    present = {files.identifiers.row(row).tobytes() for row in range(len(files.identifiers))}
    return lambda tokens: tokens.tobytes() in present


def _names(catalog: Catalog) -> list[str]:
    return list(catalog.table.column_names)


def _cell(row: Row, name: str) -> Cell:
    return row.get(name, True) if name == "active" else row.get(name)


def _check_settable(catalog: Catalog, name: str, where: str) -> None:
    if name in FIXED_COLUMNS:
        raise InputError(
            f"{where}: {name} cannot be set; item_id and index are fixed, and active has activate and deactivate"
        )
    if name not in catalog.table.column_names:
        known = ", ".join(each for each in catalog.table.column_names if each not in FIXED_COLUMNS)
        raise InputError(f"{where}: the catalog has no column {name!r}; choose from: {known}")


def _cells(catalog: Catalog, name: str, cells: list[Cell], where: str) -> Values:
    """Values converted to a column's type. Raises InputError naming the column and its type."""
    kind = catalog.table.column(name).type
    try:
        values: Values = pa.array(cells, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(f"{where}: a value of {name} is not of the type {kind}: {error}") from error
    return values


def _with_cells(catalog: Catalog, name: str, cell_of_row: Mapping[int, Cell]) -> Column:
    column = catalog.table.column(name)
    news = _cells(catalog, name, list(cell_of_row.values()), "set")
    if len(catalog) > MOST_HELD and len(cell_of_row) <= _MOST_SPLICED:
        return _spliced(column, dict(zip(cell_of_row, range(len(news)), strict=True)), news)
    places = np.arange(len(catalog))
    places[list(cell_of_row)] = np.arange(len(catalog), len(catalog) + len(news))
    return pa.chunked_array([*column.chunks, news]).take(places)


def _spliced(column: Column, place_of_row: Mapping[int, int], news: Values) -> Column:
    """A column whose unchanged parts are shared with the old one: [N], in one more chunk or two for each new value."""
    chunks: list[Values] = []
    start = 0
    for row in sorted(place_of_row):
        chunks += column.slice(start, row - start).chunks
        chunks.append(news.slice(place_of_row[row], 1))
        start = row + 1
    chunks += column.slice(start).chunks
    return pa.chunked_array([chunk for chunk in chunks if len(chunk)], type=column.type)
