"""Problem documents (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FieldError(BaseModel):
    """One thing that is wrong with one field."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="The field at fault, with dots between levels; `body` for the whole.")
    message: str = Field(description="The rule that does not hold, and the value where it is short.")
    code: str = Field(description="Stable name of the rule.")


class Problem(BaseModel):
    """What went wrong, for people (`title`, `detail`) and for programs (`code`, `retryable`)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="URN of the kind of problem.", examples=["urn:vip5:problem:unknown_domain"])
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="This very problem: the value, the rule and the remedy.")
    code: str = Field(description="Stable name of the kind of problem.", examples=["unknown_domain"])
    request_id: str = Field(description="Names the request in the service's log.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[FieldError] | None = Field(default=None, description="For bad input: what is wrong, field by field.")
