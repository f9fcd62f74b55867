"""Base classes and field types of all bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.degradation import Degradation, DegradationKind

MAX_INT = 2**63 - 1
MAX_FIELDS = 64

DomainName: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]
ItemId: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
UserId: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
UserName: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]
TemplateId: TypeAlias = Annotated[str, Field(min_length=1, max_length=8)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
ItemIds: TypeAlias = Annotated[list[ItemId], Field(max_length=10_000)]


class RequestBody(BaseModel):
    """A request; rejects unknown fields, wrong types and non-finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_number_of_fields(cls, given: object) -> object:
        """Limit the errors of one body: each unknown field is one, and a large body has room for very many."""
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"the body has {len(given)} fields, most of them unknown; send at most {MAX_FIELDS}")
        return given


class AnswerBody(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DegradedBody(AnswerBody):
    """One way in which an answer is degraded."""

    kind: str = Field(
        description=f"Stable name of the kind: {', '.join(DegradationKind)}.",
        examples=[DegradationKind.MISSING_FEATURES.value],
    )
    detail: str = Field(description="Human-readable detail.")


def degraded_bodies(degraded: Iterable[Degradation]) -> list[DegradedBody]:
    return [DegradedBody(kind=each.kind.value, detail=each.detail) for each in degraded]
