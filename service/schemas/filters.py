"""The `where` filter: values that an item's columns may have."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from model.bundle.columns import Scalar
from service.schemas.base import MAX_INT

MAX_TEXT_LENGTH = 512
MAX_VALUES = 1_000

SCALAR_SCHEMA: list[dict[str, Any]] = [
    {"type": "string", "maxLength": MAX_TEXT_LENGTH},
    {"type": "boolean"},
    {"type": "integer", "minimum": -MAX_INT, "maximum": MAX_INT},
    {"type": "number"},
]
_SCHEMA: dict[str, Any] = {
    "anyOf": [*SCALAR_SCHEMA, {"type": "array", "items": {"anyOf": SCALAR_SCHEMA}, "maxItems": MAX_VALUES}]
}


def values_of(given: object) -> tuple[Scalar, ...]:
    """One value or a list of values. Raises one ValueError where a union would report an error per type."""
    values = given if isinstance(given, list) else [given]
    if len(values) > MAX_VALUES:
        raise ValueError(f"a column may have at most {MAX_VALUES} values, not {len(values)}")
    return tuple(scalar_of(value) for value in values)


Column: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
Values: TypeAlias = Annotated[tuple[Scalar, ...], PlainValidator(values_of), WithJsonSchema(_SCHEMA)]
Where: TypeAlias = Annotated[dict[Column, Values], Field(max_length=32)]


def scalar_of(value: object) -> Scalar:
    """One value. Raises ValueError."""
    match value:
        case bool():
            return value
        case str() if len(value) <= MAX_TEXT_LENGTH and _is_unicode(value):
            return value
        case int() if abs(value) <= MAX_INT:
            return value
        case float() if math.isfinite(value):
            return value
    raise ValueError(
        f"a value must be true, false, a string of at most {MAX_TEXT_LENGTH} characters or a finite 64-bit number"
    )


def _is_unicode(text: str) -> bool:
    """False for unpaired surrogates, which JSON can express and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
