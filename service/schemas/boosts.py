"""Boosts and limits in bodies of requests."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from model.planning.boosts import MAX_FACTOR, MIN_FACTOR, factor_of
from service.schemas.base import ItemId, RequestBody
from service.schemas.filters import MAX_TEXT_LENGTH, Column

Factor: TypeAlias = Annotated[
    float,
    PlainValidator(factor_of),
    WithJsonSchema({"type": "number", "minimum": MIN_FACTOR, "maximum": MAX_FACTOR}),
]
ValueText: TypeAlias = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
ColumnFactors: TypeAlias = Annotated[dict[Column, dict[ValueText, Factor]], Field(max_length=32)]
MaxPer: TypeAlias = Annotated[dict[Column, Annotated[int, Field(ge=1, le=100)]], Field(max_length=8)]


class FactorsBody(RequestBody):
    """Factors; all that apply to an item are multiplied."""

    columns: ColumnFactors = Field(
        default={}, description="By column and value, whose numbers and booleans are written as in JSON."
    )
    items: dict[ItemId, Factor] = Field(default={}, description="By item.")


class BoostBody(FactorsBody):
    """Boosts of one request, which multiply with the domain's."""
