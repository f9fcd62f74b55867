"""Numbered lines of text files, plain or gzipped; knows nothing of their content."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from model.datasets.faults import Faults
from model.errors import DatasetError
from model.progress import Progress, no_progress

_LINES_PER_REPORT = 1000
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_OTHER_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


@dataclass(frozen=True)
class Source:
    """A file to read, where its faults are counted, and where progress in bytes is reported."""

    path: Path
    faults: Faults
    progress: Progress = no_progress

    def place(self, number: int) -> str:
        """The line with this number."""
        return f"{self.path.name}:{number}"

    def fault(self, rule: str, number: int) -> None:
        """Count the line with this number as a fault."""
        self.faults.add(rule, self.place(number))

    @property
    def bare_name(self) -> str:
        """The file's name in lower case, without .gz."""
        return self.path.name.lower().removesuffix(".gz")


@contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The content of a file, unpacked if it is gzipped, and the file itself, whose position tells the progress.

    Raises DatasetError for a missing or damaged file, for an archive, and for an encoding other than UTF-8.
    """
    path = source.path
    try:
        with path.open("rb") as raw:
            is_packed = path.name.endswith(".gz") or raw.peek(2).startswith(_GZIP)
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if is_packed else raw
            _refuse_other_forms(path, stream.peek(4)[:4])  # type: ignore[attr-defined]  # both classes have it
            yield stream, raw
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read to the end: {error}; download the file again") from error


def numbered_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Numbers, counted from 1, and texts of the lines that are not blank; a line that is not UTF-8 is a fault.

    Raises DatasetError as `opened` does.
    """
    with opened(source) as (stream, raw):
        size = source.path.stat().st_size
        for number, line in enumerate(stream, start=1):
            if number % _LINES_PER_REPORT == 0:
                source.progress(f"reading {source.path.name}", raw.tell(), size)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                source.fault("the line is not UTF-8", number)
                continue
            if text:
                yield number, text


def require_some(source: Source, num_lines: int, num_good: int, form: str) -> None:
    """Raise DatasetError if there are lines, but no valid one."""
    if num_lines and not num_good:
        first = "; ".join(source.faults.descriptions(source.path.name))
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


def _refuse_other_forms(path: Path, start: bytes) -> None:
    if start == _ZIP:
        raise DatasetError(f"{path} is an archive or a workbook; unpack it, or save the sheet as CSV (UTF-8)")
    encoding = next((name for mark, name in _OTHER_ENCODINGS if start.startswith(mark)), None)
    if encoding is None and b"\x00" in start:
        encoding = "UTF-16"
    if encoding is not None:
        raise DatasetError(f"{path} is in {encoding}; save it as UTF-8")
