"""Writes answers to files: JSON lines, or Parquet with the fields of all kinds of answers as columns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from service.answering.request_files import is_parquet

ROWS_PER_GROUP = 16_384

_ITEM = pa.struct(
    [
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
        ("title", pa.string()),
        ("image", pa.string()),
    ]
)
_DEGRADED = pa.struct([("kind", pa.string()), ("detail", pa.string())])
_COLUMNS: dict[str, pa.DataType] = {
    "request_id": pa.string(),
    "status": pa.int16(),
    "items": pa.list_(_ITEM),
    "exact_prefix": pa.int32(),
    "num_beams_effective": pa.int32(),
    "text": pa.string(),
    "star_rating": pa.float64(),
    "degraded": pa.list_(_DEGRADED),
    "domain": pa.string(),
    "bundle": pa.string(),
    "catalog_revision": pa.int64(),
    "code": pa.string(),
    "detail": pa.string(),
    "json": pa.string(),
}
SCHEMA = pa.schema(_COLUMNS)
"""A row for each request. `json` is the whole answer; columns of other kinds of answers are null."""


class AnswerFormat(Protocol):
    """How answers, each given as JSON, are written to files."""

    def write(self, answers: Sequence[str], path: Path) -> None: ...

    def join(self, parts: Sequence[Path], path: Path) -> None:
        """Write files that `write` wrote as one."""
        ...


class JsonLines:
    """An answer in each line."""

    def write(self, answers: Sequence[str], path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{answer}\n" for answer in answers)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        with path.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)


class Parquet:
    """An answer in each row."""

    def write(self, answers: Sequence[str], path: Path) -> None:
        pq.write_table(_table(answers), path)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        with pq.ParquetWriter(path, SCHEMA) as writer:
            gathered: list[pa.Table] = []
            for part in parts:
                gathered.append(pq.read_table(part, schema=SCHEMA))
                if sum(each.num_rows for each in gathered) >= ROWS_PER_GROUP:
                    writer.write_table(pa.concat_tables(gathered))
                    gathered.clear()
            if gathered:
                writer.write_table(pa.concat_tables(gathered))


def format_of(path: Path) -> AnswerFormat:
    return Parquet() if is_parquet(path) else JsonLines()


def _table(answers: Sequence[str]) -> pa.Table:
    return pa.Table.from_pylist([_row(answer) for answer in answers], SCHEMA)


def _row(answer: str) -> dict[str, object]:
    found = json.loads(answer)
    return {"status": 200} | {name: found.get(name) for name in SCHEMA.names if name in found} | {"json": answer}
