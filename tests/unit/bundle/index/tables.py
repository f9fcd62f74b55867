"""Tables for indexes: few and many, plain and odd."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.bundle.catalog import Catalog
from model.bundle.compiled_items import CompiledItems
from model.bundle.domain_files import DomainTables
from model.bundle.identifiers import tokenise_identifiers
from model.bundle.index.contents import IndexedTables
from model.bundle.index.index import Index
from model.bundle.index.sealed import SealedMemory
from model.bundle.layout import DomainSpec
from model.bundle.users import Users
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import TINY_LAYOUT, tiny_catalog, tiny_tokenizer

TOKENIZER = TextTokenizer(tiny_tokenizer())
KEY = "0123456789abcdef" * 4


def built(catalog: Catalog, users: Users | None = None) -> DomainTables:
    """Tables as they are without an index."""
    identifiers = tokenise_identifiers(catalog.indices, catalog.item_ids, TOKENIZER, "catalog")
    return DomainTables(DomainSpec("toys", TINY_LAYOUT, ""), catalog, identifiers, users)


def indexed(tables: DomainTables, key: str = KEY) -> Index:
    compiled = CompiledItems.of(tables.identifiers, tables.catalog.indices, TOKENIZER)
    return Index.build(key, IndexedTables(tables.catalog, compiled, tables.users))


def tiny_index(num_items: int = 30, key: str = KEY) -> Index:
    users = Users.from_rows([{"user_id": "u1", "index": "1", "name": "Ann"}, {"user_id": "u2", "index": "2"}])
    return indexed(built(tiny_catalog(num_items), users), key)


def written(index: Index, path: Path) -> Path:
    path.write_bytes(index.memory.map())
    return path


def catalog_of(item_ids: Sequence[str], columns: Mapping[str, Sequence[object]] | None = None) -> Catalog:
    """Items whose identifiers are the numbers from 1 on."""
    more = columns or {}
    return Catalog.from_rows(
        {"item_id": item_id, "index": str(row + 1), **{name: values[row] for name, values in more.items()}}
        for row, item_id in enumerate(item_ids)
    )


def reopened(index: Index) -> Index:
    """As a process opens it that got the descriptor."""
    return Index.open(SealedMemory(os.dup(index.memory.descriptor)))
