"""Records of a file by the names that a reader knows: JSON lines, CSV or Parquet, told apart by name and content."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Mapping

from model.datasets.csv_lines import csv_records
from model.datasets.field_names import FieldNames
from model.datasets.parquet_rows import parquet_records
from model.datasets.text_lines import Source, numbered_lines, opened, require_some
from model.errors import DatasetError

_TABLES = (".csv", ".tsv", ".txt", ".dat")


def numbered_records(source: Source, names: FieldNames) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Numbers and records of a file: lines of JSON or of Python literals, of CSV, or rows of Parquet.

    Literals are parsed and never executed. Other lines are faults; raises DatasetError if all are, and for a table
    without any column that is known. At the end, the source's faults are told of the fields that are not read.
    """
    num_records = 0
    for numbered in _records(source, names):
        num_records += 1
        yield numbered
    described = names.description()
    if described and num_records:
        source.faults.notice(f"{source.path.name}: {described}")


def require_good(source: Source, num_good: int, due: str, names: FieldNames) -> None:
    """Raise DatasetError if no line of a file is good; `due` is what each must have."""
    if num_good:
        return
    found = "; ".join(source.faults.descriptions(source.path.name)) or "there is no line"
    hint = names.description()
    raise DatasetError(f"{source.path} has no {due}: {found}" + (f"; {hint}" if hint else ""))


def _records(source: Source, names: FieldNames) -> Iterator[tuple[int, Mapping[str, object]]]:
    if source.bare_name.endswith(".parquet"):
        yield from parquet_records(source, names)
    elif source.bare_name.endswith(_TABLES) and not _has_objects(source):
        yield from csv_records(source, names)
    else:
        yield from _json_records(source, names)


def _has_objects(source: Source) -> bool:
    with opened(source) as (stream, _):
        return stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _json_records(source: Source, names: FieldNames) -> Iterator[tuple[int, Mapping[str, object]]]:
    num_lines = num_records = 0
    for number, text in numbered_lines(source):
        num_lines += 1
        record = _record(text)
        if record is None:
            source.fault("the line is neither a JSON object nor a Python literal of one", number)
            continue
        num_records += 1
        yield number, names.named(record)
    require_some(source, num_lines, num_records, "one JSON object per line")


def _record(text: str) -> dict[str, object] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _literal(text)
    return found if isinstance(found, dict) and all(isinstance(name, str) for name in found) else None


def _literal(text: str) -> object:
    if not text.startswith("{"):
        return None
    try:
        with warnings.catch_warnings():
            for category in (SyntaxWarning, DeprecationWarning):  # backslashes before any letter are common in texts
                warnings.simplefilter("ignore", category)
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
