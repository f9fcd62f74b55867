"""Answers of GET /health/live and /health/ready."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from service.schemas import examples
from service.schemas.base import AnswerBody


class LiveAnswer(AnswerBody):
    """Whether the process works."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LIVE_ANSWER]})

    status: str = Field(description="`live` or `not_live`.")
    reasons: list[str] = Field(description="Why the process should be restarted.")


class ReadyAnswer(AnswerBody):
    """Whether the service accepts requests."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.READY_ANSWER]})

    status: str = Field(description="`ready` or `not_ready`.")
    reasons: list[str] = Field(description="Why the service is not ready.")
    degraded: list[str] = Field(description="Faults that degrade answers.")
