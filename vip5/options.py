"""Optional fields of requests, as keyword arguments. `service/schemas` describes and checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

Value = bool | int | float | str


class RankingOptions(TypedDict, total=False):
    """Fields of `POST /recommend/sequential`, beside the domain, the history and k."""

    user_id: str
    user_name: str
    template: str
    num_beams: int
    exclude_items: Sequence[str]
    exclude_history: bool
    include_items: Sequence[str]
    where: Mapping[str, Value | Sequence[Value]]
    boost: Mapping[str, object]
    max_per: Mapping[str, int]
    length_penalty: float
    exactness: Literal["beam", "certified"]
    attribution: int
    mask_images: Sequence[str]


class ExplanationOptions(TypedDict, total=False):
    """Fields of `POST /explain`, beside the domain and the item."""

    user_id: str
    user_name: str
    feature: str
    star_rating: int
    review_headline: str
    template: str
    max_new_tokens: int
    num_beams: int
    temperature: float
    top_p: float
    seed: int
