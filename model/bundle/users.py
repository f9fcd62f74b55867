"""The known users of a domain: the shop's ids, the model's indices, and names for prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from model.bundle.column_texts import MOST_HELD
from model.bundle.columns import in_one_chunk, name_column, optional_text_column, require_unique, strings
from model.bundle.hashed_ids import RowsById
from model.bundle.likely_names import hint
from model.bundle.opened_file import Content
from model.bundle.tables import matching_rows, parse_bundled_parquet, read_bundled_parquet, table_of, write_parquet
from model.errors import CatalogError


@dataclass(frozen=True)
class User:
    """`index` is the model's identifier of the user; `name` is for prompts, None if unknown."""

    user_id: str
    index: str
    name: str | None


@dataclass(frozen=True, eq=False)
class Users:
    """Create one with `from_rows`, `from_table` or `read`, which check the columns."""

    table: pa.Table
    ids: RowsById | None = None
    """Rows by user id, if they are known already."""

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object]]) -> Users:
        """From one mapping per user, with `user_id`, `index` and optionally `name`."""
        return cls.from_table(table_of(rows, "the users' table"), "the users' table")

    @classmethod
    def from_table(cls, table: pa.Table, where: str) -> Users:
        """Convert and check the columns; raises CatalogError naming `where`, the column and the rule."""
        columns = {name: name_column(table, name, where) for name in ("user_id", "index")}
        require_unique(columns["user_id"], "user_id", where)
        unknown = sorted(set(table.column_names) - {"user_id", "index", "name"})
        if unknown:
            meant = hint(unknown, [name for name in ("user_id", "index", "name") if name not in table.column_names])
            raise CatalogError(
                f"{where} has unknown columns {', '.join(unknown)}; keep only user_id, index and name"
                + (f". {meant}" if meant else "")
            )
        columns["name"] = optional_text_column(table, "name", where)
        return cls(pa.table(columns))

    @classmethod
    def read(cls, path: Path, where: str = "users.parquet") -> Users:
        """Read users.parquet; error messages call it `where`."""
        return cls.from_table(read_bundled_parquet(path, where), where)

    @classmethod
    def parse(cls, content: Content, where: str = "users.parquet") -> Users:
        """Like `read`, from the content of the file."""
        return cls.from_table(parse_bundled_parquet(content, where), where)

    def write(self, path: Path) -> None:
        write_parquet(path, self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def row_of(self, user_id: str) -> int | None:
        return self._rows.get(user_id)

    def index(self, row: int) -> str:
        return str(self._columns["index"][row])

    def name(self, row: int) -> str | None:
        name: str | None = self._columns["name"][row].as_py()
        return name

    def search(self, text: str, offset: int, limit: int) -> tuple[list[User], int]:
        """One page of the users whose user_id or name contains `text`, ignoring case, and the number of all."""
        rows, total = matching_rows(self.table, ("user_id", "name"), text, offset, limit)
        return [self._user(row) for row in rows], total

    @cached_property
    def _rows(self) -> RowsById:
        """A small table's are a dictionary, which is several times as fast."""
        if self.ids is not None and len(self) > MOST_HELD:
            return self.ids
        return {user_id: row for row, user_id in enumerate(strings(self.table.column("user_id")))}

    @cached_property
    def _columns(self) -> dict[str, pa.Array[Any]]:
        """In one chunk each, in which looking up a row is faster."""
        return {name: in_one_chunk(self.table.column(name)) for name in ("user_id", "index", "name")}

    def _user(self, row: int) -> User:
        return User(**{name: column[row].as_py() for name, column in self._columns.items()})
