"""Plans as they travel from a worker to the engine process."""

# Arrays are the little-endian bytes of the type in the comment.

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class WirePrompt(Struct, array_like=True, frozen=True):
    """A `Prompt`."""

    input_ids: bytes  # int64, so that neither end converts them
    whole_word_ids: bytes  # int64
    category_ids: bytes  # int64
    image_items: list[int]
    num_tokens_untruncated: int


class WireFeatures(Struct, array_like=True, frozen=True):
    """Embeddings [U, D] of the images of all prompts, and the rows that each prompt shows."""

    rows: bytes
    dtype: str
    dim: int
    places: list[bytes] | None = None  # int64; None: a single prompt shows all rows in order


class WirePrompts(Struct, array_like=True, frozen=True):
    """What all kinds of plans have."""

    version: int
    task: str
    template: str
    prompts: list[WirePrompt]
    features: WireFeatures | None


class WireEligibility(Struct, array_like=True, frozen=True):
    """The leaves that a search may return. The members of a filter travel once per connection."""

    filter_key: bytes  # empty for all active items
    members: bytes | None  # packed bits, if the filter is new to this connection
    excluded: bytes  # int32
    included: bytes | None  # int32


class WireBoosts(Struct, array_like=True, frozen=True):
    """The `Boosts` of a plan. The tables are made at the other end, which has the same catalog and rules."""

    columns: list[tuple[str, list[tuple[str, float]]]]
    has_rules: bool
    leaves: bytes  # int32
    extra: bytes  # float32


WireLimits: TypeAlias = list[tuple[str, int]]
"""Columns, and the most items of each value."""


class WireSearch(Struct, array_like=True, tag="search", frozen=True):
    """A `RankingPlan`."""

    prompts: WirePrompts
    eligibility: WireEligibility
    k: int
    num_beams: int
    length_penalty: float
    certified: bool
    boosts: WireBoosts | None
    limits: WireLimits


class WireScoring(Struct, array_like=True, tag="score", frozen=True):
    """A `ScoringPlan`."""

    prompts: WirePrompts
    targets: list[list[int]]
    leaves: bytes  # int32
    k: int
    is_attribution: bool  # whether it is an `AttributionPlan`
    boosts: WireBoosts | None
    limits: WireLimits


class WireText(Struct, array_like=True, tag="text", frozen=True):
    """A `TextPlan`."""

    prompts: WirePrompts
    max_new_tokens: int
    num_beams: int
    temperature: float
    top_p: float
    seed: int | None


WirePlan: TypeAlias = WireSearch | WireScoring | WireText
