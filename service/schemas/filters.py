"""`where`: which values of which columns an item may have."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from model.bundle.columns import Scalar
from service.schemas.base import LARGEST_INT

LONGEST_TEXT = 512
MOST_VALUES = 1_000

SCALAR_SCHEMA: list[dict[str, Any]] = [
    {"type": "string", "maxLength": LONGEST_TEXT},
    {"type": "boolean"},
    {"type": "integer", "minimum": -LARGEST_INT, "maximum": LARGEST_INT},
    {"type": "number"},
]
_SCHEMA: dict[str, Any] = {
    "anyOf": [*SCALAR_SCHEMA, {"type": "array", "items": {"anyOf": SCALAR_SCHEMA}, "maxItems": MOST_VALUES}]
}


def values_of(given: object) -> tuple[Scalar, ...]:
    """One value or a list of values. Raises ValueError, in one sentence where a union would say one per type."""
    values = given if isinstance(given, list) else [given]
    if len(values) > MOST_VALUES:
        raise ValueError(f"a column takes at most {MOST_VALUES} values, not {len(values)}")
    return tuple(scalar_of(value) for value in values)


Column: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
Values: TypeAlias = Annotated[tuple[Scalar, ...], PlainValidator(values_of), WithJsonSchema(_SCHEMA)]
Where: TypeAlias = Annotated[dict[Column, Values], Field(max_length=32)]


def scalar_of(value: object) -> Scalar:
    """One value. Raises ValueError."""
    match value:
        case bool():
            return value
        case str() if len(value) <= LONGEST_TEXT and _is_unicode(value):
            return value
        case int() if abs(value) <= LARGEST_INT:
            return value
        case float() if math.isfinite(value):
            return value
    raise ValueError(
        f"a value must be true, false, a string of at most {LONGEST_TEXT} characters or a finite 64-bit number"
    )


def _is_unicode(text: str) -> bool:
    """JSON can spell halves of surrogate pairs, which are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
