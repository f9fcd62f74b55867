"""Problem documents (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import examples


class FieldError(BaseModel):
    """An error in one field."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="Path of the field, separated by dots; `body` for the whole body.")
    message: str = Field(description="The violated rule and the value, truncated.")
    code: str = Field(description="Stable name of the rule.")


class Problem(BaseModel):
    """An error, for people (`title`, `detail`) and for programs (`code`, `retryable`)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.PROBLEM]})

    type: str = Field(description="URN of the kind of problem.", examples=["urn:vip5:problem:unknown_domain"])
    title: str = Field(description="Summary of the kind of problem.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="This occurrence: the value, the rule and the remedy.")
    code: str = Field(description="Stable name of the kind of problem.", examples=["unknown_domain"])
    request_id: str = Field(description="Identifies the request in the service's log.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[FieldError] | None = Field(default=None, description="For invalid input: the errors by field.")
