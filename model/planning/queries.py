"""Queries: the fields of a request that planning reads.

The bodies of HTTP requests satisfy these protocols. Callers without a body (evaluation, benchmarks) use the Offline
classes, which have the same defaults. Planning checks the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from model.bundle.columns import Scalar
from model.planning.boosts import BoostFactors, Factors
from model.planning.rotation import Rotation

Exactness = Literal["beam", "certified"]


class UserQuery(Protocol):
    """User and template; None for the domain's default."""

    @property
    def user_id(self) -> str | None: ...
    @property
    def user_name(self) -> str | None: ...
    @property
    def template(self) -> str | None: ...


class RankingQuery(UserQuery, Protocol):
    """Options of a ranking."""

    @property
    def k(self) -> int: ...
    @property
    def num_beams(self) -> int | None: ...
    @property
    def exclude_items(self) -> Sequence[str]: ...
    @property
    def where(self) -> Mapping[str, tuple[Scalar, ...]]: ...
    @property
    def length_penalty(self) -> float | None: ...
    @property
    def exactness(self) -> Exactness: ...
    @property
    def boost(self) -> Factors | None: ...
    @property
    def domain_boosts(self) -> bool:
        """Whether the domain's own boosts apply too."""
        ...

    @property
    def max_per(self) -> Mapping[str, int]:
        """Most items of each value, by column."""
        ...

    @property
    def rotation(self) -> Rotation | None:
        """What the user was shown lately, which counts less."""
        ...


class SequentialQuery(RankingQuery, Protocol):
    """Rank next items for a history, oldest item first."""

    @property
    def history(self) -> Sequence[str]: ...
    @property
    def exclude_history(self) -> bool: ...
    @property
    def include_items(self) -> Sequence[str] | None: ...


class DirectQuery(RankingQuery, Protocol):
    """Rank candidates, or the whole catalog if they are None."""

    @property
    def candidates(self) -> Sequence[str] | None: ...


class ExplanationQuery(UserQuery, Protocol):
    """Explain why a user would like an item."""

    @property
    def item_id(self) -> str: ...
    @property
    def feature(self) -> str | None: ...
    @property
    def star_rating(self) -> int | None: ...
    @property
    def review_headline(self) -> str | None: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def num_beams(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def seed(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class _OfflineRanking:
    user_id: str | None = None
    user_name: str | None = None
    template: str | None = None
    k: int = 10
    num_beams: int | None = None
    exclude_items: tuple[str, ...] = ()
    where: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    length_penalty: float | None = None
    exactness: Exactness = "beam"
    rotation: Rotation | None = None
    boost: BoostFactors | None = None
    domain_boosts: bool = True
    max_per: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OfflineSequential(_OfflineRanking):
    """A SequentialQuery."""

    history: tuple[str, ...]
    exclude_history: bool = True
    include_items: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class OfflineDirect(_OfflineRanking):
    """A DirectQuery."""

    candidates: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class OfflineExplanation:
    """An ExplanationQuery."""

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
