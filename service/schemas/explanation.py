"""Bodies of POST /explain."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from model.engine.protocol import FinishReason
from service.schemas import examples
from service.schemas.base import (
    MAX_INT,
    AnswerBody,
    DegradedBody,
    DomainName,
    ItemId,
    RequestBody,
    TemplateId,
    Text,
    UserId,
    UserName,
)


class ExplanationRequest(RequestBody):
    """Explain why a user would like an item."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.EXPLANATION})

    domain: DomainName = Field(description="The domain; GET /domains lists them.")
    item_id: ItemId = Field(description="The item to explain.")
    user_id: UserId | None = Field(default=None, description="The shop's id of the user.")
    user_name: UserName | None = Field(
        default=None, description="The user's name in the prompt (default: the stored name)."
    )
    feature: Text | None = Field(default=None, description="The feature word that the explanation should mention.")
    star_rating: int | None = Field(default=None, ge=1, le=5, description="The user's rating of the item.")
    review_headline: Text | None = Field(default=None, description="The headline of the user's review.")
    template: TemplateId | None = Field(
        default=None, description="The prompt template (default: the best for the given fields)."
    )
    max_new_tokens: int = Field(default=64, ge=1, le=512, description="Maximum length of the text in tokens.")
    num_beams: int = Field(default=1, ge=1, le=32, description="Beam width; 1 is greedy search.")
    temperature: float = Field(default=0.0, ge=0, le=10, description="Sampling temperature; 0 is greedy search.")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Sample from the most likely tokens with this total probability."
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_INT, description="Seed for reproducible sampling.")
    stream: bool = Field(default=False, description="Stream the answer token by token as server-sent events.")


class ExplanationAnswer(AnswerBody):
    """A generated text."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EXPLANATION_ANSWER]})

    text: str = Field(description="The explanation.")
    star_rating: float | None = Field(description="The predicted rating; null unless the template asks for one.")
    template: str = Field(description="The prompt template that was used.")
    finish_reason: FinishReason = Field(description="Why generation stopped.")
    degraded: list[DegradedBody] = Field(description="The ways in which the answer is degraded.")
    domain: str = Field(description="The domain.")
    bundle: str = Field(description="Hash of the bundle.")
    catalog_revision: int = Field(description="Number of changes made to the catalog since it was loaded.")
    request_id: str = Field(description="Identifies the request in the service's log.")


class TokenEvent(AnswerBody):
    """Data of a `token` event: the text that a new token adds."""

    text: str = Field(description="Text to append to that of earlier events.")


EventName = Literal["token", "done", "error"]
