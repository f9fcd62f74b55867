"""Bodies of POST /recommend/sequential and /recommend/direct."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from model.planning.attribution import PartKind
from model.planning.boosts import MIN_FACTOR
from model.planning.queries import Exactness
from model.planning.rotation import Rotation
from service.schemas import examples
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
from service.schemas.boosts import BoostBody, MaxPer
from service.schemas.filters import Where

Fallback = Literal["popular", "none"]


_NOT_GIVEN: Any = object()


def _check_history(given: object, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> list[str]:
    """Empty if it was not given; without a user whose history could be read instead, it has to be."""
    if given is not _NOT_GIVEN:
        history: list[str] = check(given)
        return history
    if info.data.get("user_id") is None:
        raise PydanticCustomError("missing", "Field required")
    return []


def _is_none(value: object) -> bool:
    return value is None


class RotateBody(RequestBody):
    """How far items that the user was shown lately are lowered."""

    factor: float = Field(
        default=0.5,
        ge=MIN_FACTOR,
        lt=1,
        description="Factor of an item that was shown just now; after half of `fade_s`, its square root.",
    )
    fade_s: float = Field(
        default=86_400, ge=1, le=2_592_000, description="Seconds after which an item counts as before."
    )


def _check_rotate(rotate: RotateBody | None, info: ValidationInfo) -> RotateBody | None:
    if rotate is not None and info.data.get("user_id") is None:
        raise PydanticCustomError(
            "rotate_without_user",
            "rotate lowers what a user was shown, and there is no user_id; send it, or leave rotate out",
        )
    return rotate


class RankingRequest(RequestBody):
    """Fields common to both kinds of recommendation requests."""

    domain: DomainName = Field(description="The domain; GET /domains lists them.")
    user_id: UserId | None = Field(default=None, description="The shop's id of the user.")
    user_name: UserName | None = Field(
        default=None, description="The user's name in the prompt (default: the stored name)."
    )
    template: TemplateId | None = Field(default=None, description="The prompt template (default: the domain's).")
    k: int = Field(default=10, ge=1, le=100, description="Maximum number of items to return.")
    num_beams: int | None = Field(default=None, ge=1, le=256, description="Beam width (default: max(20, k)).")
    exclude_items: ItemIds = Field(default=[], description="Items to exclude.")
    where: Where = Field(default={}, description="Return only items whose column has the value, or one of the values.")
    length_penalty: float | None = Field(
        default=None, ge=0, le=5, description="Scores are divided by length^length_penalty (default: the domain's)."
    )
    exactness: Exactness = Field(
        default="beam", description="`certified` widens the search until all k items are proven or a limit is reached."
    )
    boost: BoostBody | None = Field(default=None, description="Factors by which items count more or less.")
    domain_boosts: bool = Field(default=True, description="Whether the domain's own boosts apply too.")
    max_per: MaxPer = Field(default={}, description="Most items to return of each value, by column.")
    rotate: Annotated[RotateBody | None, AfterValidator(_check_rotate)] = Field(
        default=None, description="Lower items that the user was shown lately, and remember those of this answer."
    )
    deadline_ms: int | None = Field(
        default=None,
        ge=1,
        le=600_000,
        description="Deadline; exceeding it gives status 504 (default: the service's).",
    )
    timings: bool = Field(default=False, description="Return the duration of each stage.")
    attribution: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Return for each item this many reasons: items of the prompt, or their pictures (default: none).",
    )
    mask_images: ItemIds = Field(default=[], description="Items whose images the model does not see.")
    role: Literal["stable", "canary"] | None = Field(
        default=None, description="Answer with this version of the domain (default: the one for the user)."
    )
    _rotation: ClassVar[Rotation | None] = None
    """Set on a request whose rotation was looked up. A private attribute of pydantic would cost every request."""

    @property
    def rotation(self) -> Rotation | None:
        """What the user was shown lately, once it was looked up."""
        return self._rotation

    def with_rotation(self, rotation: Rotation) -> Self:
        copy = self.model_copy()
        object.__setattr__(copy, "_rotation", rotation)
        return copy


class SequentialRequest(RankingRequest):
    """Recommend the next items after a history."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.SEQUENTIAL})

    history: Annotated[ItemIds, Field(min_length=1), WrapValidator(_check_history)] = Field(
        default_factory=lambda: _NOT_GIVEN,
        validate_default=True,
        description="Past items, oldest first (default: the stored history of `user_id`, as far as the service keeps "
        "histories).",
    )
    fallback: Fallback = Field(
        default="popular",
        description="Without a history, return the most popular items, or fail: with status 404 if the user has none, "
        "503 if histories cannot be reached.",
    )
    exclude_history: bool = Field(default=True, description="Exclude the items of the history.")
    include_items: ItemIds | None = Field(
        default=None, description="Return only these items (default: the whole catalog)."
    )


class DirectRequest(RankingRequest):
    """Rank given candidates, or the whole catalog."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.DIRECT})

    candidates: Annotated[ItemIds, Field(min_length=1)] | None = Field(
        default=None, description="The items to rank (default: the whole catalog)."
    )


class Reason(AnswerBody):
    """A part of the prompt that a recommendation is due to."""

    item_id: ItemId = Field(description="An item of the history, or a candidate.")
    part: PartKind = Field(description="The item itself with its image, or only its image.")
    effect: float = Field(
        description="What the recommended item's log-probability loses without it, in nats; negative if it gains."
    )


class RankedItem(AnswerBody):
    """A recommended item."""

    rank: int = Field(description="Rank, from 1 for the best.")
    item_id: ItemId = Field(description="The shop's id.")
    score: float = Field(
        description="Log-probability of the item, divided by length^length_penalty; P(yes) for pointwise templates."
    )
    title: str | None = Field(description="The item's title.")
    image: str | None = Field(description="The item's image reference.")
    attributes: dict[str, Any] = Field(description="All other catalog columns, including `category`.")
    because: list[Reason] | None = Field(
        default=None, exclude_if=_is_none, description="The reasons, strongest first, if `attribution` was given."
    )
    boosted_score: float | None = Field(
        default=None,
        exclude_if=_is_none,
        description="The score with the item's boosts, which items are ordered by, if boosts apply.",
    )


class TimingsBody(AnswerBody):
    """Duration of each stage in milliseconds; `encode` and `decode` are those of the whole batch."""

    history: float | None = Field(
        default=None, exclude_if=_is_none, description="Reading the stored history, if the request brought none."
    )
    plan: float = Field(description="Assembling the prompt.")
    features: float = Field(description="Fetching image embeddings.")
    queue: float = Field(description="Waiting for the engine.")
    encode: float = Field(description="The encoder.")
    decode: float = Field(description="The decoder.")
    attribution: float | None = Field(
        default=None, exclude_if=_is_none, description="Finding the reasons, if `attribution` was given."
    )
    total: float = Field(description="From the first stage to the last.")


class RankingAnswer(AnswerBody):
    """Ranked items, with their exactness and any degradation."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RANKING_ANSWER]})

    items: list[RankedItem] = Field(description="The best items first; at most k, fewer if fewer are eligible.")
    exact_prefix: int = Field(
        description="Number of leading items proven to be the true top of the catalog under the model."
    )
    num_beams_effective: int = Field(description="Beam width that was used; 0 if no search was needed.")
    degraded: list[DegradedBody] = Field(description="The ways in which the answer is degraded.")
    domain: str = Field(description="The domain.")
    bundle: str = Field(description="Hash of the bundle.")
    catalog_revision: int = Field(description="Number of changes made to the catalog since it was loaded.")
    request_id: str = Field(description="Identifies the request in the service's log.")
    timings_ms: TimingsBody | None = Field(default=None, description="Durations by stage, if requested.")
