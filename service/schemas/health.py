"""Answers of GET /health/live and /health/ready."""

from __future__ import annotations

from pydantic import Field

from service.schemas.base import AnswerBody


class LiveAnswer(AnswerBody):
    """The process answers."""

    status: str = Field(description="`live`.")


class ReadyAnswer(AnswerBody):
    """Whether requests are taken."""

    status: str = Field(description="`ready` or `not_ready`.")
    reasons: list[str] = Field(description="What stands in the way.")
    degraded: list[str] = Field(description="What makes answers less than they could be.")
