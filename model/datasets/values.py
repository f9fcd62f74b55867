"""One value of a record as a text or a number, whatever reader it came from: JSON, CSV, Parquet or a pickle.

A value is read, or it is missing (None, a blank text), or it is counted and named: nothing else becomes missing.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

import numpy as np

from model.datasets.faults import Faults

T = TypeVar("T")

_CURRENCIES = r"[$€£¥₹]|[A-Z]{2}\$|USD|EUR|GBP|CHF|JPY|CAD|AUD|INR|SEK|NOK|DKK|PLN|kr\.?|zł"
_AMOUNT = re.compile(
    rf"(?P<sign>[-+\u2212]?)\s*(?P<before>{_CURRENCIES})?\s*(?P<inner>[-+\u2212]?)\s*"
    rf"(?P<digits>\d[\d.,'\u2019\s]*|[.,]\d+)\s*(?P<after>{_CURRENCIES})?",
    re.IGNORECASE,
)
_GROUPS = re.compile(r"\d{1,3}(?:([.,'\u2019\s])\d{3})(?:\1\d{3})*")
_COMMA_GROUPS = re.compile(r"\$|£|USD|GBP|CAD|AUD", re.IGNORECASE)  # currencies that group thousands with commas


class UnreadableError(ValueError):
    """The value is neither missing nor of the kind that is due."""


@dataclass(frozen=True)
class Fields:
    """The values of one record; those that cannot be read are added to `faults`, with `place`."""

    record: Mapping[str, object]
    faults: Faults
    place: str

    def number(self, *names: str) -> float | None:
        """The number in the first of the fields that is there."""
        return self._read(number_of, "a number", names)

    def text(self, *names: str, clean: Callable[[str], str] | None = None) -> str | None:
        """The text in the first of the fields that is there, as it is; with `clean`, cleaned and on one line."""
        found = self._read(text_of, "a text", names)
        return one_line(clean(found)) if found is not None and clean is not None else found

    def unread(self, name: str, kind: str) -> None:
        """Count the value of a field, which is not `kind`."""
        self.faults.add(f"{name} is not {kind}", f"{self.place}: {shown(self.record[name])}")

    def _read(self, read: Callable[[object], T | None], kind: str, names: tuple[str, ...]) -> T | None:
        for name in names:
            try:
                found = read(self.record.get(name))
            except UnreadableError:
                self.unread(name, kind)
                continue
            if found is not None:
                return found
        return None


def number_of(value: object) -> float | None:
    """The finite number in a value, None if it is missing.

    Texts may have a currency, a decimal comma and groups of thousands: `$1,234.50`, `4,99 €`. Raises UnreadableError
    for other values: `1,234 €` may be two numbers, and a boolean, NaN or a list of two is none.
    """
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, str):
        value = _number_in(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise UnreadableError
    try:
        number = float(value)
    except (OverflowError, ValueError) as error:
        raise UnreadableError from error
    if not math.isfinite(number):
        raise UnreadableError
    return number


def text_of(value: object) -> str | None:
    """The text in a value, None if it is missing; numbers become texts. Raises UnreadableError for other values."""
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, str):
        if not has_whole_letters(value):
            raise UnreadableError
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1 << 53 else repr(value)
    raise UnreadableError


def plain(value: object) -> object:
    """A value of Python's own types: a numpy scalar, bytes of UTF-8 and a list of one value as what they hold.

    None stands for all that is missing: None itself, a blank text, and a list of nothing.
    """
    if type(value) is str:  # most are
        return value.strip() or None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, str):
        return value.strip() or None
    return None if isinstance(value, list | tuple) and not value else value


def has_whole_letters(text: str) -> bool:
    """Whether UTF-8 can store a text; JSON and pickles can have half a letter, such as an emoji that was cut."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def one_line(text: str) -> str | None:
    """A text with single spaces, or None if it is empty."""
    return " ".join(text.split()) or None


def shown(value: object) -> str:
    """A value for a message, cut if it is long."""
    return reprlib.repr(value)


def _number_in(text: str) -> float:
    """The number in a text; raises UnreadableError if there is none or if it may be two."""
    if "_" not in text:  # Python's own grammar admits 1_000
        try:
            return float(text)
        except ValueError:
            pass
    found = _AMOUNT.fullmatch(text)
    if found is None or (found["before"] and found["after"]) or (found["sign"] and found["inner"]):
        raise UnreadableError
    currency = found["before"] or found["after"] or ""
    number = float(_with_decimal_point(found["digits"].strip(), commas_group=bool(_COMMA_GROUPS.search(currency))))
    return -number if (found["sign"] or found["inner"]) in {"-", "\u2212"} else number


def _with_decimal_point(digits: str, *, commas_group: bool) -> str:
    """`1.234,50` as `1234.50`; raises UnreadableError if the last separator may be of decimals or of thousands."""
    last = max(digits.rfind("."), digits.rfind(","))
    whole, decimals = (digits, "") if last < 0 else (digits[:last], digits[last + 1 :])
    separators = re.sub(r"\d", "", digits)
    is_grouped = len(separators) > 1 and separators == separators[0] * len(separators)
    if len(decimals) == 3 and len(separators) == 1 and 1 <= len(whole) <= 3 and whole != "0":
        if digits[last] == "," and commas_group:
            is_grouped = True
        else:
            raise UnreadableError
    if is_grouped or last < 0:
        whole, decimals = digits, ""
    if not (whole.isdigit() or not whole or _GROUPS.fullmatch(whole)) or (decimals and not decimals.isdigit()):
        raise UnreadableError
    return f"{re.sub(r'[^0-9]', '', whole) or '0'}.{decimals or '0'}"
