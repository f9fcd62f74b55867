"""Bodies of POST /explain."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from model.engine.protocol import FinishReason
from service.schemas.base import (
    LARGEST_INT,
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

EXAMPLES: list[Any] = [
    {"domain": "toys", "item_id": "toy-0001", "user_id": "user-0001", "feature": "colour", "max_new_tokens": 16},
    {
        "domain": "toys",
        "item_id": "toy-0002",
        "user_id": "user-0001",
        "star_rating": 5,
        "stream": True,
        "max_new_tokens": 16,
    },
]


class ExplanationRequest(RequestBody):
    """Why a user would like an item."""

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    domain: DomainName = Field(description="The domain to answer from; GET /domains names them.")
    item_id: ItemId = Field(description="The item to explain.")
    user_id: UserId | None = Field(default=None, description="The shop's own id of the user.")
    user_name: UserName | None = Field(default=None, description="Stands in the prompt in place of the stored name.")
    feature: Text | None = Field(default=None, description="A word that the explanation is to be about.")
    star_rating: int | None = Field(default=None, ge=1, le=5, description="The rating to explain.")
    review_headline: Text | None = Field(default=None, description="The headline of the user's review.")
    template: TemplateId | None = Field(
        default=None, description="The prompt; left out: the best for the given fields."
    )
    max_new_tokens: int = Field(default=64, ge=1, le=512, description="Longest text, in tokens.")
    num_beams: int = Field(default=1, ge=1, le=32, description="Beams of the search; 1 is greedy.")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 is greedy; more draws at random.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Draw among the likeliest tokens that hold this mass.")
    seed: int | None = Field(default=None, ge=0, le=LARGEST_INT, description="Makes drawing repeatable.")
    stream: bool = Field(default=False, description="Answer in server-sent events, token by token.")


class ExplanationAnswer(AnswerBody):
    """A generated text."""

    text: str = Field(description="The explanation.")
    star_rating: float | None = Field(description="The rating that the model gave, where the template asks for one.")
    template: str = Field(description="The prompt that was used.")
    finish_reason: FinishReason = Field(description="Why the text ends where it does.")
    degraded: list[DegradedBody] = Field(description="What made the answer less than it could be.")
    domain: str = Field(description="The domain that answered.")
    bundle: str = Field(description="Hash of the bundle that answered.")
    catalog_revision: int = Field(description="How often the catalog had been changed since it was loaded.")
    request_id: str = Field(description="Names the request in the service's log.")


class TokenEvent(AnswerBody):
    """Data of a `token` event: what a new token added to the text."""

    text: str = Field(description="To be appended to what came before.")


EventName = Literal["token", "done", "error"]
