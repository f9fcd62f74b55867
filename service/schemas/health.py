"""Answers of GET /health/live and /health/ready."""

from __future__ import annotations

from pydantic import Field

from service.schemas.base import AnswerBody


class LiveAnswer(AnswerBody):
    """Whether the process can do its work."""

    status: str = Field(description="`live` or `not_live`.")
    reasons: list[str] = Field(description="Why the process should be started anew.")


class ReadyAnswer(AnswerBody):
    """Whether requests are taken."""

    status: str = Field(description="`ready` or `not_ready`.")
    reasons: list[str] = Field(description="What stands in the way.")
    degraded: list[str] = Field(description="What makes answers less than they could be.")
