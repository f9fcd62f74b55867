"""Ids of users and items as texts. An id is text: `007` and `7` are two ids, and no id is ever rewritten.

Only values that a file stores as numbers become texts, each in its canonical form: 7 and 7.0 are `7`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from model.datasets.values import has_whole_letters, plain
from model.errors import DatasetError

SHORTENED = "an id was shortened to a form such as 1.08775E+08; format the column as text, and export it again"
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")
_MISSING = ("nan", "NaN", "NaT", "None", "null", "NULL", "<NA>", "N/A", "#N/A", "\\N", "undefined")
_EXACT = 1 << 53  # floats are exact integers below


def id_text(value: object) -> str | None:
    """The id as text, without blanks around it; None if the value is no id: empty, a boolean, 7.5, a list."""
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, str):
        return value if has_whole_letters(value) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, Decimal):
        return str(int(value)) if value.is_finite() and value == value.to_integral_value() else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() and abs(value) < _EXACT else None
    return str(value) if isinstance(value, int) and abs(value) < 1 << 64 else None


def missing_id_notices(lines_of: Mapping[str, int], field: str, where: str) -> list[str]:
    """A line for each id that programs write where there is none, such as pandas' `nan`; `lines_of` counts lines."""
    return [
        f"{where}: {own!r} is the {field} of {lines_of[own]:,} {'line' if lines_of[own] == 1 else 'lines'}, and read "
        "as any other; if it stands for a missing value, remove it there"
        for own in _MISSING
        if own in lines_of
    ]


def require_own_numbers(numbers: Mapping[str, str], texts: Iterable[str]) -> None:
    """Raise DatasetError if an id that a file stores as a number may stand for a text with leading zeros.

    `numbers` are such ids with their places; a number has lost its leading zeros, so 7 may have been `007`.
    """
    if not numbers:
        return
    for text in texts:
        number = text.lstrip("0") or "0"
        if number != text and is_number(text) and number in numbers:
            raise DatasetError(
                f"{numbers[number]}: the id {number} is stored as a number and may stand for {text!r}, because numbers"
                f" have no leading zeros; write ids as strings, {text!r} or {number!r}"
            )


def is_shortened(own: str) -> bool:
    """Whether an id is a number as spreadsheets shorten it, such as 1.08775E+08, which stands for many ids."""
    return _SHORTENED.fullmatch(own) is not None


def is_number(text: str) -> bool:
    """Whether the text has digits only."""
    return text.isascii() and text.isdigit()


def number_order(number: str) -> tuple[int, str, int]:
    """Sorts digits of any length by value, and by length if the values are equal."""
    digits = number.lstrip("0")
    return len(digits), digits, len(number)
