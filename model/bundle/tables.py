"""Reading tables from files and rows, and searching in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from model.bundle.columns import Column, Values, booleans, filled
from model.bundle.folders import replacing
from model.bundle.opened_file import Content, OpenedFile
from model.bundle.parquet_footer import FooterError, declared_bytes
from model.errors import CatalogError

_BLOCK_BYTES = 16 << 20  # a JSON line must fit into one block
MOST_TABLE_BYTES = 4 << 30
"""Size limit of a bundle's table in memory; a catalog of ten million items is smaller."""
_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")


def table_of(rows: Iterable[Mapping[str, object]], where: str) -> pa.Table:
    """A table from rows, which may have different keys; a missing key is null."""
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    try:
        return pa.table({name: [row.get(name) for row in listed] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CatalogError(f"{where}: a column has values of different types ({error}); give it one type") from error
    except UnicodeEncodeError as error:
        raise CatalogError(f"{where}: {error.object!r} has half a letter, which no encoding can store") from error


def read_source(path: Path) -> pa.Table:
    """Read JSON lines, plain or gzipped, or Parquet, by the file's suffix."""
    if path.name.lower().endswith(".parquet"):
        return read_parquet(path, path.name)
    if path.name.lower().endswith(_JSON_SUFFIXES):
        return _read_json_lines(path)
    raise CatalogError(
        f"{path.name} has an unknown suffix; give JSON lines (.jsonl or .jsonl.gz) or Parquet (.parquet)"
    )


def read_parquet(path: Path, where: str) -> pa.Table:
    """Read a Parquet file; raises CatalogError, naming `where`, for any other file."""
    try:
        return _with_distinct_names(_validated(pq.ParquetFile(path).read()), where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{where} is not a readable Parquet file: {error}") from error


def read_bundled_parquet(path: Path, where: str) -> pa.Table:
    """The table in a file, like `parse_bundled_parquet`."""
    try:
        content = OpenedFile(path).content()
    except OSError as error:
        raise CatalogError(f"{where} is not a readable Parquet file: {error}") from error
    return parse_bundled_parquet(content, where)


def parse_bundled_parquet(content: Content, where: str) -> pa.Table:
    """The table in a Parquet file's content, also if it was crafted to unpack into more than the memory can hold.

    Strings are read as Parquet's dictionaries and unpacked only once their size is known, because a value that is
    repeated a billion times hardly takes space in the file. Raises CatalogError, naming `where`.
    """
    try:
        _check_unpacked(where, declared_bytes(content))
        file = pq.ParquetFile(pa.BufferReader(content))
        leaves = [file.schema.column(place) for place in range(len(file.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        packed = _validated(pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts).read())
        _check_unpacked(where, sum(_unpacked_bytes(column) for column in packed.columns))
        return _with_distinct_names(_validated(packed.cast(file.schema_arrow)), where)
    except (pa.ArrowException, OSError, UnicodeDecodeError, FooterError) as error:
        raise CatalogError(f"{where} is not a readable Parquet file: {error}") from error


def write_parquet(path: Path, table: pa.Table) -> None:
    """Equal tables give equal bytes; a file that is there is replaced, not overwritten."""
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def matching_rows(table: pa.Table, columns: Sequence[str], text: str, offset: int, limit: int) -> tuple[list[int], int]:
    """One page of the rows with `text` in one of the columns, ignoring case, and the number of all such rows."""
    pattern = text.strip().encode("utf-8", "replace").decode("utf-8")
    if not pattern:
        return list(range(offset, min(offset + limit, table.num_rows))), int(table.num_rows)
    is_match = np.zeros(table.num_rows, dtype=np.bool_)
    for name in columns:
        texts = filled(table.column(name))
        is_match |= booleans(pc.match_substring(texts, pattern, ignore_case=True))
    rows = np.flatnonzero(is_match)
    return rows[offset : offset + limit].tolist(), len(rows)


def _validated(table: pa.Table) -> pa.Table:
    """The table, whose places in dictionaries and texts Arrow does not check when it reads them.

    Raises ArrowInvalid, and UnicodeDecodeError for a column's name that is not UTF-8.
    """
    table.validate(full=True)
    assert len(table.column_names) == table.num_columns
    return table


def _with_distinct_names(table: pa.Table, where: str) -> pa.Table:
    """The table. Raises CatalogError for two columns of one name."""
    (name, count), *_ = Counter(table.column_names).most_common(1) or [("", 0)]
    if count > 1:
        raise CatalogError(f"{where} has {count} columns {name}; remove or rename all but one")
    return table


def _check_unpacked(where: str, num_bytes: int) -> None:
    if num_bytes > MOST_TABLE_BYTES:
        raise CatalogError(
            f"{where} unpacks to {num_bytes} bytes, the limit is {MOST_TABLE_BYTES}; remove columns or rows"
        )


def _unpacked_bytes(column: Column) -> int:
    return sum(_unpacked_bytes_of(chunk) for chunk in column.chunks)


def _unpacked_bytes_of(chunk: Values) -> int:
    if isinstance(chunk, pa.DictionaryArray):
        lengths = np.asarray(pc.binary_length(cast("pa.StringArray", chunk.dictionary))).astype(np.int64)
        return int(lengths[np.asarray(chunk.indices.drop_null())].sum())
    if isinstance(chunk, pa.ListArray | pa.LargeListArray):
        return int(chunk.nbytes) + _unpacked_bytes_of(chunk.flatten())
    return int(chunk.nbytes)


def _read_json_lines(path: Path) -> pa.Table:
    try:
        table = _parse_json(path, None)
        # Arrow reads strings that look like dates as timestamps; keep them as strings.
        texts = [(field.name, _with_texts_for_times(field.type)) for field in table.schema]
        dated = [(name, kind) for name, kind in texts if kind != table.schema.field(name).type]
        return _parse_json(path, pa.schema(dated)).select(table.column_names) if dated else _validated(table)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path.name} is not readable JSON lines: {error}; correct the file") from error


def _with_texts_for_times(kind: pa.DataType) -> pa.DataType:
    """The type with strings for timestamps, at any depth."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if isinstance(kind, pa.ListType):
        return pa.list_(_with_texts_for_times(kind.value_type))
    if isinstance(kind, pa.StructType):
        return pa.struct([(field.name, _with_texts_for_times(field.type)) for field in kind])
    return kind


def _parse_json(path: Path, schema: pa.Schema | None) -> pa.Table:
    return pj.read_json(
        str(path),
        read_options=pj.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pj.ParseOptions(explicit_schema=schema),
    )
