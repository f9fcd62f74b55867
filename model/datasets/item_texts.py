"""What items are called, with what else is known of them in words: the texts that their vectors count words of."""

# N items

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from model.bundle.catalog import Catalog
from model.errors import DatasetError

_NO_WORD = re.compile(r"\W+")


def item_texts(catalog: Catalog, columns: Sequence[str]) -> list[str]:
    """The titles of N items, followed by the values of these columns, each value a single word: `Nail_Polish`.

    A column has texts or lists of texts. Raises DatasetError for one that the items lack, or that has something else.
    """
    texts = [title or "" for title in catalog.titles]
    for name in columns:
        for row, values in enumerate(_values(catalog.table, name)):
            texts[row] = " ".join([texts[row], *(_NO_WORD.sub("_", value.strip()) for value in values)]).strip()
    return texts


def _values(table: pa.Table, name: str) -> list[Sequence[str]]:
    """The texts of a column by item, [N]."""
    if name not in table.column_names:
        known = ", ".join(column for column in table.column_names if _is_text(table.schema.field(column).type))
        raise DatasetError(f"the items have no column {name!r}; their columns of texts are {known}")
    kind = table.schema.field(name).type
    if not _is_text(kind):
        raise DatasetError(f"the items' column {name!r} has values of type {kind}, no texts; name one of texts")
    values = table.column(name).to_pylist()
    if not pa.types.is_list(kind):
        values = [[value] for value in values]
    return [[text for text in each or () if text] for each in values]


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
