"""Bodies of POST /recommend/sequential and /recommend/direct."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from model.planning.queries import Exactness
from service.schemas.base import (
    AnswerBody,
    DegradedBody,
    DomainName,
    ItemId,
    ItemIds,
    RequestBody,
    TemplateId,
    UserId,
    UserName,
)
from service.schemas.filters import Where

SEQUENTIAL_EXAMPLES: list[Any] = [
    {"domain": "toys", "history": ["toy-0001", "toy-0002", "toy-0003"], "user_id": "user-0001", "k": 5},
    {
        "domain": "toys",
        "history": ["toy-0010", "toy-0011"],
        "user_name": "Ada",
        "template": "A-4",
        "exclude_items": ["toy-0012"],
        "exactness": "certified",
        "timings": True,
    },
]
DIRECT_EXAMPLES: list[Any] = [
    {"domain": "toys", "user_id": "user-0001", "candidates": ["toy-0004", "toy-0005", "toy-0006"], "k": 3},
    {"domain": "toys", "user_id": "user-0001", "candidates": ["toy-0004", "toy-0005"], "template": "B-1"},
]


class RankingRequest(RequestBody):
    """What the two ways of asking for items have in common."""

    domain: DomainName = Field(description="The domain to answer from; GET /domains names them.")
    user_id: UserId | None = Field(default=None, description="The shop's own id of the user.")
    user_name: UserName | None = Field(default=None, description="Stands in the prompt in place of the stored name.")
    template: TemplateId | None = Field(default=None, description="The prompt; left out: the domain's default.")
    k: int = Field(default=10, ge=1, le=100, description="Most items to return.")
    num_beams: int | None = Field(default=None, ge=1, le=256, description="Width of the search; left out: max(20, k).")
    exclude_items: ItemIds = Field(default=[], description="Items never to return.")
    where: Where = Field(default={}, description="Only items whose column has the value, or one of the values.")
    length_penalty: float | None = Field(
        default=None, ge=0, le=5, description="Scores are divided by length^length_penalty; left out: the domain's."
    )
    exactness: Exactness = Field(
        default="beam", description="`certified` widens the search until all k items are proven, or a limit is reached."
    )
    deadline_ms: int | None = Field(default=None, ge=1, le=600_000, description="Answer within, or 504.")
    timings: bool = Field(default=False, description="Whether to tell where the time went.")


class SequentialRequest(RankingRequest):
    """Next items for a history."""

    model_config = ConfigDict(json_schema_extra={"examples": SEQUENTIAL_EXAMPLES})

    history: Annotated[ItemIds, Field(min_length=1)] = Field(description="Past items, oldest first.")
    exclude_history: bool = Field(default=True, description="Whether items of the history are never returned.")
    include_items: ItemIds | None = Field(default=None, description="Only these may be returned.")


class DirectRequest(RankingRequest):
    """Rank candidates, or the whole catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": DIRECT_EXAMPLES})

    candidates: Annotated[ItemIds, Field(min_length=1)] | None = Field(
        default=None, description="The items to rank; left out: the whole catalog."
    )


class RankedItem(AnswerBody):
    """One item of an answer."""

    rank: int = Field(description="1 for the best.")
    item_id: ItemId = Field(description="The shop's own id.")
    score: float = Field(
        description="Log-probability of the item (over length^length_penalty), or P(yes) where yes/no was asked."
    )
    title: str | None = Field(description="The catalog's title.")
    image: str | None = Field(description="The catalog's reference to the picture.")
    attributes: dict[str, Any] = Field(description="The catalog's further columns, `category` included.")


class TimingsBody(AnswerBody):
    """Milliseconds that each stage took; encode and decode are those of the whole batch."""

    plan: float = Field(description="Assembling the prompt.")
    features: float = Field(description="Fetching image embeddings.")
    queue: float = Field(description="Waiting for the engine.")
    encode: float = Field(description="The encoder.")
    decode: float = Field(description="The decoder.")
    total: float = Field(description="From the first stage to the last.")


class RankingAnswer(AnswerBody):
    """Items, best first, and how far to trust them."""

    items: list[RankedItem] = Field(description="At most k, fewer if fewer are eligible.")
    exact_prefix: int = Field(description="So many leading items are proven to be the true top under the model.")
    num_beams_effective: int = Field(description="Width of the search that found them; 0 where none was needed.")
    degraded: list[DegradedBody] = Field(description="What made the answer less than it could be.")
    domain: str = Field(description="The domain that answered.")
    bundle: str = Field(description="Hash of the bundle that answered.")
    catalog_revision: int = Field(description="How often the catalog had been changed since it was loaded.")
    request_id: str = Field(description="Names the request in the service's log.")
    timings_ms: TimingsBody | None = Field(default=None, description="Where the time went, if asked for.")
