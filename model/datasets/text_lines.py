"""Numbered lines of text files, plain or gzipped; knows nothing of their content."""

from __future__ import annotations

import ast
import gzip
import json
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from model.datasets.faults import Faults
from model.errors import DatasetError
from model.progress import Progress, no_progress

_LINES_PER_REPORT = 1000


@dataclass(frozen=True)
class Source:
    """A file to read, where its faults are counted, and where progress in bytes is reported."""

    path: Path
    faults: Faults
    progress: Progress = no_progress

    def fault(self, rule: str, number: int) -> None:
        """Count the line with this number as a fault."""
        self.faults.add(rule, f"{self.path.name}:{number}")


def numbered_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Numbers, counted from 1, and texts of the lines that are not blank; a line that is not UTF-8 is a fault.

    Raises DatasetError for a missing or damaged file.
    """
    path = source.path
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if path.name.endswith(".gz") else raw
            for number, line in enumerate(stream, start=1):
                if number % _LINES_PER_REPORT == 0:
                    source.progress(f"reading {path.name}", raw.tell(), size)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError:
                    source.fault("the line is not UTF-8", number)
                    continue
                if text:
                    yield number, text
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read to the end: {error}; download the file again") from error


def numbered_records(source: Source) -> Iterator[tuple[int, dict[str, object]]]:
    """Numbers and objects of a file with one object per line: JSON, or Python literals as in McAuley's files of 2014.

    Literals are parsed and never executed. Any other line is a fault; raises DatasetError if all lines are faults.
    """
    num_lines = num_records = 0
    for number, text in numbered_lines(source):
        num_lines += 1
        record = _record(text)
        if record is None:
            source.fault("the line is neither a JSON object nor a Python literal of one", number)
            continue
        num_records += 1
        yield number, record
    require_some(source, num_lines, num_records, "one JSON object per line")


def require_some(source: Source, num_lines: int, num_good: int, form: str) -> None:
    """Raise DatasetError if there are lines, but no valid one."""
    if num_lines and not num_good:
        first = "; ".join(source.faults.descriptions())
        raise DatasetError(f"{source.path}: all {num_lines:,} lines are broken; the file must have {form}. {first}")


def read_json_object(path: Path) -> dict[str, object]:
    """A file that is one JSON object, plain or gzipped; raises DatasetError for any other."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        document = json.loads(content)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; check the path") from error
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not readable JSON: {error}; download the file again") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} is a JSON {type(document).__name__}; it must be an object")
    return document


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
