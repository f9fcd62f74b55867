"""What all bodies have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.degradation import Degradation, DegradationKind

LARGEST_INT = 2**63 - 1
MOST_FIELDS = 64

DomainName: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]
ItemId: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
UserId: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
UserName: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
TemplateId: TypeAlias = Annotated[str, Field(min_length=1, max_length=8)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
ItemIds: TypeAlias = Annotated[list[ItemId], Field(max_length=10_000)]


class RequestBody(BaseModel):
    """A request: unknown fields, other types and non-finite numbers are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_number_of_fields(cls, given: object) -> object:
        """Each unknown field is a fault of its own, and a body of a megabyte has room for very many."""
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"the body has {len(given)} fields, of which most are unknown; send at most {MOST_FIELDS}")
        return given


class AnswerBody(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DegradedBody(AnswerBody):
    """Something that made the answer less than it could be."""

    kind: str = Field(
        description=f"Stable name: {', '.join(DegradationKind)}.", examples=[DegradationKind.MISSING_FEATURES.value]
    )
    detail: str = Field(description="Details for people.")


def degraded_bodies(degraded: Iterable[Degradation]) -> list[DegradedBody]:
    return [DegradedBody(kind=each.kind.value, detail=each.detail) for each in degraded]
