"""Records of CSV files as shops export them: any of four delimiters, a byte order mark, quotes, lines within quotes.

All values are texts, so ids keep their leading zeros.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, cast

from model.datasets.field_names import FieldNames
from model.datasets.text_lines import Source, opened
from model.errors import DatasetError

_DELIMITERS = ",;\t|"
_LINES_PER_REPORT = 1000
_MOST_LINES = 200  # of one record, whose quotes may have line breaks
_RULES = {f"field larger than field limit ({csv.field_size_limit()})": "the line has a value that is too long"}
_SURROGATES = range(0xDC80, 0xDD00)  # stand for bytes that are not UTF-8


def csv_records(source: Source, names: FieldNames) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Numbers of lines, counted from 1, and records by known names; blank values are kept.

    A line that is not UTF-8, that has another number of values than the header, or whose quotes are not closed is a
    fault. Raises DatasetError for an empty file, and as `FieldNames.places` does.
    """
    with opened(source) as (stream, raw):
        # Line breaks are those of any system, and bytes that are not UTF-8 stay apart.
        text = io.TextIOWrapper(cast("IO[bytes]", stream), encoding="utf-8-sig", errors="surrogateescape")
        lines = _Lines(source, text, raw)
        header, delimiter = _header(lines, names, source)
        places = names.places(header, str(source.path))
        while (line := lines.next()) is not None:
            number = lines.number
            try:
                values = _values(line, lines, delimiter)
            except csv.Error as error:
                source.fault(_RULES.get(str(error), "the line's quotes are not closed"), number)
                continue
            if not any(value.strip() for value in values):
                continue
            rule = _fault(values, len(header))
            if rule:
                source.fault(rule, number)
                continue
            yield number, {name: values[place] for name, place in places.items()}


class _Lines:
    """The lines of a text, of which some can be put back."""

    def __init__(self, source: Source, text: io.TextIOWrapper, raw: IO[bytes]) -> None:
        self._source, self._text, self._raw = source, text, raw
        self._size = source.path.stat().st_size
        self._again: list[str] = []
        self.number = 0

    def next(self) -> str | None:
        line = self._again.pop() if self._again else self._text.readline()
        if not line:
            return None
        self.number += 1
        if self.number % _LINES_PER_REPORT == 0:
            self._source.progress(f"reading {self._source.path.name}", self._raw.tell(), self._size)
        return line

    def put_back(self, lines: Sequence[str]) -> None:
        self._again.extend(reversed(lines))
        self.number -= len(lines)


def _values(line: str, lines: _Lines, delimiter: str) -> list[str]:
    """The values of a record that begins in `line`; raises csv.Error if its quotes are broken or a value is too long.

    Of such a record only the first line is taken, so that one stray quote does not take others along.
    """
    more: list[str] = []
    while True:
        try:
            return next(csv.reader([line, *more], delimiter=delimiter, strict=True))
        except csv.Error as error:
            following = lines.next() if "end of data" in str(error) and len(more) < _MOST_LINES else None
            if following is None:
                lines.put_back(more)
                raise
            more.append(following)


def _fault(values: list[str], num_columns: int) -> str | None:
    if not all(map(str.isascii, values)) and any(ord(letter) in _SURROGATES for letter in "".join(values)):
        return "the line is not UTF-8; save the file as UTF-8"
    if len(values) < num_columns or any(value.strip() for value in values[num_columns:]):
        return "the line has another number of values than the header"
    return None


def _header(lines: _Lines, names: FieldNames, source: Source) -> tuple[list[str], str]:
    """The names of the columns and the delimiter: the one that gives the most known names, then the most names."""
    line = lines.next()
    while line is not None and not line.strip():
        line = lines.next()
    if line is None:
        raise DatasetError(f"{source.path} is empty; it must have a header and lines")
    declared = line.strip().lower()
    if declared.startswith("sep=") and len(declared) == len("sep=") + 1:  # as Excel has it
        return _header(lines, names, source)
    candidates = []
    for delimiter in _DELIMITERS:
        header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
        candidates.append((sum(names.find(name) is not None for name in header), len(header), header, delimiter))
    _, _, header, delimiter = max(candidates, key=lambda found: found[:2])
    while header and not header[-1]:
        header.pop()
    if not header:
        raise DatasetError(f"{source.path}: the first line has no names of columns; it must name the columns")
    return header, delimiter
