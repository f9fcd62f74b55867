"""Points in time as tables have them: numbers of seconds or smaller units, dates, texts of ISO 8601, Arrow's types.

A number alone does not tell its unit, a column of numbers does: those of 1990 to 2100 are of other magnitudes in each.
"""

# L lines

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from model.datasets.text_lines import Source
from model.datasets.values import UnreadableError, number_of, plain
from model.errors import DatasetError

SECONDS_OF = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
_FIRST, _LAST = 631_152_000, 4_102_444_800  # 1990 and 2100, in seconds
_END_OF_TIME = 1 << 40  # seconds
_DATES = "dates as YYYYMMDD"
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
_YEAR_FIRST = re.compile(r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})(.*)")
_NUMBER = re.compile(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?")
_UTC = re.compile(r"\s*(?:UTC|GMT)$")


class _Kind(IntEnum):
    NUMBER = 0  # of a unit that the column tells
    ZONED = 1
    UNZONED = 2
    DATE = 3


class Times:
    """The times of a column, in the order in which they are added."""

    def __init__(self) -> None:
        self._values = array("d")  # seconds since 1970, or numbers of an unknown unit
        self._kinds = array("b")

    def add(self, value: object) -> None:
        """Add a value. Raises UnreadableError for one that is no time, and then adds nothing."""
        number, kind = _time_of(plain(value))
        self._values.append(number)
        self._kinds.append(kind)

    def seconds(self, lines: Sequence[int], source: Source, column: str) -> NDArray[np.float64]:
        """Seconds since 1970, [L], NaN for a number that is no time; tells the source's faults what was read.

        `lines` are the lines of the values. Raises DatasetError for numbers of two units.
        """
        values, kinds = np.array(self._values), np.array(self._kinds)
        is_number = kinds == _Kind.NUMBER
        name, found = _unit(values, is_number, lines, f"{source.path.name}: {column}")
        seconds = np.where(is_number, np.nan, values)
        if name == _DATES:
            of_date = {number: _seconds_of_digits(int(number)) for number in np.unique(values[is_number & found])}
            seconds[is_number & found] = [of_date[number] for number in values[is_number & found]]
        elif name:
            scaled = values * SECONDS_OF[name]
            is_time = is_number & ((scaled >= 0) & (scaled < _END_OF_TIME) if name == "seconds" else found)
            seconds[is_time] = scaled[is_time]
        good = seconds[np.isfinite(seconds)]
        if len(good):
            source.faults.notice(f"{source.path.name}: {column} has {_forms(name, kinds)}, {_span(good)}")
        return seconds


def _time_of(value: object) -> tuple[float, _Kind]:
    """A number of an unknown unit, or seconds since 1970."""
    if isinstance(value, str):
        return _time_in(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC).timestamp(), _Kind.UNZONED
        return value.timestamp(), _Kind.ZONED
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp(), _Kind.DATE
    number = number_of(value)
    if number is None:
        raise UnreadableError
    return number, _Kind.NUMBER


def _time_in(text: str) -> tuple[float, _Kind]:
    if _NUMBER.fullmatch(text):
        try:
            return float(text), _Kind.NUMBER
        except ValueError:
            pass  # a date with dots
    text = _UTC.sub("+00:00", text)
    try:
        day_first, year_first = _DAY_FIRST.fullmatch(text), _YEAR_FIRST.fullmatch(text)
        if day_first:
            day, month, year, hour, minute, second = (int(part or 0) for part in day_first.groups())
            found = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
            return found.timestamp(), _Kind.UNZONED if day_first[4] else _Kind.DATE
        if year_first:
            text = f"{year_first[1]}-{int(year_first[3]):02}-{int(year_first[4]):02}{year_first[5]}"
        if len(text) <= len("2021-01-05"):
            return _time_of(date.fromisoformat(text))
        return _time_of(datetime.fromisoformat(text.replace(" +", "+")))
    except ValueError as error:
        raise UnreadableError from error


def _unit(
    values: NDArray[np.float64], is_number: NDArray[np.bool_], lines: Sequence[int], where: str
) -> tuple[str, NDArray[np.bool_]]:
    """The unit of a column's numbers, and which values are of 1990 to 2100 in it; an empty name without numbers.

    Numbers that are such times in no unit, such as counters, are seconds: their order counts.
    """
    fits = {name: is_number & (values >= _FIRST / one) & (values < _LAST / one) for name, one in SECONDS_OF.items()}
    fits[_DATES] = is_number & (values >= 19900101) & (values <= 20991231)
    fits[_DATES][fits[_DATES]] = [_seconds_of_digits(value) is not None for value in values[fits[_DATES]].tolist()]
    if (fits[_DATES] != is_number).any() and not any(fits[name].any() for name in SECONDS_OF):
        fits[_DATES][:] = False  # a counter that happens to look like a date
    used = [name for name, found in fits.items() if found.any()]
    if len(used) > 1:
        examples = (
            f"{name} in line {lines[place]} ({values[place]:.0f})"
            for name in used
            if (place := int(np.argmax(fits[name]))) >= 0
        )
        raise DatasetError(f"{where} has numbers of {len(used)} units: {', '.join(examples)}; use one unit")
    if not used:
        return ("seconds" if is_number.any() else ""), np.zeros(len(values), np.bool_)
    return used[0], fits[used[0]]


def _seconds_of_digits(number: float) -> float | None:
    """20210105 as a date from 1990 to 2099."""
    if not 19900101 <= number <= 20991231 or number != int(number):
        return None
    year, month, day = int(number) // 10000, int(number) // 100 % 100, int(number) % 100
    try:
        return datetime(year, month, day, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _forms(unit: str, kinds: NDArray[np.int8]) -> str:
    forms = [unit] if unit else []
    names = {_Kind.ZONED: "times with a zone", _Kind.UNZONED: "times without a zone, read as UTC", _Kind.DATE: "dates"}
    return " and ".join([*forms, *(name for kind, name in names.items() if (kinds == kind).any())])


def _span(seconds: NDArray[np.float64]) -> str:
    first, last = seconds.min(), seconds.max()
    if not -_END_OF_TIME < first <= last < 253_402_300_800:  # the year 10000
        return f"{first:.0f} to {last:.0f}"
    return " to ".join(datetime.fromtimestamp(end, UTC).date().isoformat() for end in (first, last))
