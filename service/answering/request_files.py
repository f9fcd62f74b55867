"""Reads requests from files: JSON lines, or Parquet with a column for each field."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DatasetError

Line: TypeAlias = str | Mapping[str, object]
"""A line of JSON, or the fields of a row."""

PARQUET_SUFFIXES = (".parquet", ".pq")
_ROWS_PER_BATCH = 1024
_READ_BYTES = 1 << 20


def is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET_SUFFIXES


def num_requests_in(path: Path) -> int | None:
    """The number of requests; None of a pipe, which can be read only once. Raises DatasetError."""
    if not path.is_file():
        return None
    if is_parquet(path):
        return int(_opened(path).metadata.num_rows)
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def requests_in(path: Path, first: int = 0) -> Iterator[Line]:
    """The requests from the one numbered `first` on, counted from 0. Raises DatasetError."""
    if is_parquet(path):
        yield from _rows(_opened(path), first, path)
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from islice(lines, first, None)


def _rows(file: pq.ParquetFile, first: int, path: Path) -> Iterator[Mapping[str, object]]:
    """Rows as bodies: what is null is left out."""
    begun = 0
    try:
        for batch in file.iter_batches(_ROWS_PER_BATCH):
            end = begun + batch.num_rows
            if end > first:
                for row in _objects(batch.slice(max(0, first - begun))):
                    yield {name: _plain(value) for name, value in row.items() if value is not None}
            begun = end
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # such as a time beyond the year 9999
        raise DatasetError(f"{path} is not a readable Parquet file: {error}") from error


def _objects(batch: pa.RecordBatch) -> list[dict[str, object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a key that a map has twice, the last value counts, as in JSON
        rows: list[dict[str, object]] = batch.to_pylist(maps_as_pydicts="lossy")
    return rows


def _plain(value: object) -> object:
    """As JSON would have it: without nulls in objects, and whole numbers as such, which pandas makes floats."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a readable Parquet file: {error}; name JSON lines *.jsonl") from error


def json_of(line: Line) -> object:
    """The body. Raises ValueError or RecursionError for a line that is no JSON."""
    return json.loads(line) if isinstance(line, str) else dict(line)
