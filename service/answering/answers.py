"""Answers to requests for items, and their JSON. `service/schemas/ranking.py` describes them to clients."""

from __future__ import annotations

import msgspec

from model.bundle.columns import AttributeValue
from model.planning.attribution import PartKind


class Cause(msgspec.Struct):
    """What an item is due to; the fields are those of Reason."""

    item_id: str
    part: PartKind
    effect: float


class RecommendedItem(msgspec.Struct, omit_defaults=True):
    """One item; the fields are those of RankedItem."""

    rank: int
    item_id: str
    score: float
    title: str | None
    image: str | None
    attributes: dict[str, AttributeValue]
    because: list[Cause] | None = None
    boosted_score: float | None = None


class Degraded(msgspec.Struct):
    """One way in which the answer is degraded; the fields are those of DegradedBody."""

    kind: str
    detail: str


class Recommendation(msgspec.Struct):
    """An answer; the fields are those of RankingAnswer."""

    items: list[RecommendedItem]
    exact_prefix: int
    num_beams_effective: int
    degraded: list[Degraded]
    domain: str
    bundle: str
    catalog_revision: int
    request_id: str
    timings_ms: dict[str, float] | None = None

    def json(self) -> bytes:
        return _ENCODER.encode(self)


_ENCODER = msgspec.json.Encoder()
