"""What is asked of a domain, in the shop's own ids; the HTTP routes and the command line build these.

Field names are those of the HTTP bodies, and so are their defaults; ranges are checked where the queries are planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from model.bundle.columns import Scalar


@dataclass(frozen=True)
class RankingOptions:
    """How items are ranked, common to the sequential and the direct route."""

    k: int = 10
    num_beams: int | None = None
    exclude_items: tuple[str, ...] = ()
    where: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    length_penalty: float | None = None
    exactness: Literal["beam", "certified"] = "beam"


@dataclass(frozen=True)
class SequentialQuery:
    """Next items for a history, oldest first."""

    history: tuple[str, ...]
    user_id: str | None = None
    user_name: str | None = None
    template: str | None = None
    exclude_history: bool = True
    include_items: tuple[str, ...] | None = None
    options: RankingOptions = field(default_factory=RankingOptions)


@dataclass(frozen=True)
class DirectQuery:
    """Rank given candidates, or the whole catalog (None)."""

    candidates: tuple[str, ...] | None = None
    user_id: str | None = None
    user_name: str | None = None
    template: str | None = None
    options: RankingOptions = field(default_factory=RankingOptions)


@dataclass(frozen=True)
class ExplanationQuery:
    """Why a user would like an item."""

    item_id: str
    user_id: str | None = None
    user_name: str | None = None
    feature: str | None = None
    star_rating: int | None = None
    review_headline: str | None = None
    template: str | None = None
    max_new_tokens: int = 64
    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
