"""What an index holds of a domain, and how it becomes sections and is read back without copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.bundle.catalog import Catalog
from model.bundle.column_texts import texts_of
from model.bundle.compiled_items import CompiledItems
from model.bundle.hashed_ids import HashedIds
from model.bundle.index.layout import Sections
from model.bundle.users import Users
from model.decoding.trie import Trie
from model.errors import IntegrityError
from model.prompts.assembly import ItemTokens, TokenRows

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class IndexedTables:
    """A domain's items and users, ready for planning."""

    catalog: Catalog
    compiled: CompiledItems
    users: Users | None


def sections_of(tables: IndexedTables) -> Sections:
    """Each part as arrays; tables as Arrow's stream format, and their rows by id."""
    trie = tables.compiled.trie
    sections = {
        **_table_sections("items", tables.catalog.table, "item_id"),
        **_row_sections("identifiers", tables.compiled.tokens.identifiers),
        **_row_sections("prefixed", tables.compiled.tokens.prefixed),
        "trie.token": trie.token,
        "trie.first_child": trie.first_child,
        "trie.leaf_lo": trie.leaf_lo,
        "trie.leaf_hi": trie.leaf_hi,
        "trie.rows_of_leaves": trie.rows_of_leaves,
        "trie.fanout": np.array(trie.fanout, dtype=np.int64),
        "trie.level_widths": np.array(trie.level_widths, dtype=np.int64),
        "leaves_of_rows": tables.compiled.leaves_of_rows,
    }
    if tables.users is not None:
        sections |= _table_sections("users", tables.users.table, "user_id")
    return sections


def tables_in(sections: Sections, where: str) -> IndexedTables:
    """The parts as views of the sections. Raises IntegrityError, which names `where`, if one is missing."""
    try:
        tokens = ItemTokens(_rows(sections, "identifiers"), _rows(sections, "prefixed"))
        compiled = CompiledItems(tokens, _trie(sections), sections["leaves_of_rows"])
        items, item_rows = _table(sections, "items", "item_id")
        users = None
        if "users" in sections:
            table, user_rows = _table(sections, "users", "user_id")
            users = Users(table, user_rows)
        return IndexedTables(Catalog(items, item_rows), compiled, users)
    except (KeyError, pa.ArrowException) as error:
        raise IntegrityError(f"{where} lacks a part, or has one that cannot be read: {error}") from error


def _table_sections(name: str, table: pa.Table, id_column: str) -> dict[str, Array]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    ids = HashedIds.of(texts_of(table.column(id_column)))
    content = np.frombuffer(memoryview(sink.getvalue()), dtype=np.uint8)
    return {name: content, f"{name}.starts": ids.starts, f"{name}.rows": ids.rows}


def _table(sections: Sections, name: str, id_column: str) -> tuple[pa.Table, HashedIds]:
    table = pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(sections[name].data))).read_all()
    ids = HashedIds(texts_of(table.column(id_column)), sections[f"{name}.starts"], sections[f"{name}.rows"])
    return table, ids


def _row_sections(name: str, rows: TokenRows) -> dict[str, Array]:
    return {f"{name}.flat": rows.flat, f"{name}.offsets": rows.offsets}


def _rows(sections: Sections, name: str) -> TokenRows:
    return TokenRows(sections[f"{name}.flat"], sections[f"{name}.offsets"])


def _trie(sections: Sections) -> Trie:
    return Trie(
        token=sections["trie.token"],
        first_child=sections["trie.first_child"],
        leaf_lo=sections["trie.leaf_lo"],
        leaf_hi=sections["trie.leaf_hi"],
        rows_of_leaves=sections["trie.rows_of_leaves"],
        fanout=tuple(sections["trie.fanout"].tolist()),
        level_widths=tuple(sections["trie.level_widths"].tolist()),
    )
