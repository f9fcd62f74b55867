"""Plans as messages, and back."""

# P prompts, U distinct images, D width of an embedding

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.leaf_boosts import Boosts, BoostSpec, BoostTable
from model.decoding.leaf_groups import Limit
from model.engine.plans import AttributionPlan, Plan, RankingPlan, ScoringPlan, SharedFeatures, TextPlan
from model.prompts.prompt import Prompt
from service.channel.plan_messages import (
    WireBoosts,
    WireEligibility,
    WireFeatures,
    WireLimits,
    WirePlan,
    WirePrompt,
    WirePrompts,
    WireScoring,
    WireSearch,
    WireText,
)

T = TypeVar("T")

MAX_FILTER_BYTES = 64 << 20
"""Filters that both ends of a connection remember."""

_ID = np.dtype("<i4")
_PROMPT_ID = np.dtype("<i8")


class FilterTable(Generic[T]):
    """The filters that travelled over a connection lately. Both ends see the same order, and forget the same ones."""

    def __init__(self, max_bytes: int = MAX_FILTER_BYTES) -> None:
        self._max_bytes = max_bytes
        self._found: OrderedDict[tuple[int, bytes], tuple[T, int]] = OrderedDict()
        self._num_bytes = 0

    def get(self, version: int, key: bytes) -> T | None:
        """The value of a filter of a version, which is now the latest one."""
        found = self._found.get((version, key))
        if found is None:
            return None
        self._found.move_to_end((version, key))
        return found[0]

    def put(self, version: int, key: bytes, value: T, num_bytes: int) -> None:
        """`num_bytes` must be equal at both ends."""
        self._found[version, key] = value, num_bytes
        self._num_bytes += num_bytes
        while self._num_bytes > self._max_bytes and len(self._found) > 1:
            _, (_, freed) = self._found.popitem(last=False)
            self._num_bytes -= freed


class Merchandise(Protocol):
    """Makes the boosts and limits of a version of a domain: its DomainBoosts."""

    def table(self, spec: BoostSpec, mask: LeafMask) -> BoostTable: ...
    def limit(self, column: str, most: int) -> Limit: ...


class PlanWriter:
    """Writes the plans of one connection."""

    def __init__(self) -> None:
        self._sent: FilterTable[bool] = FilterTable()

    def write(self, plan: Plan, version: int) -> WirePlan:
        """`version` is the engine's number of the version that the plan was made with."""
        prompts = _prompts_of(plan, version)
        if isinstance(plan, RankingPlan):
            eligibility = self._eligibility_of(plan.eligibility, version)
            return WireSearch(
                prompts,
                eligibility,
                plan.k,
                plan.num_beams,
                plan.length_penalty,
                plan.certified,
                _boosts_of(plan.boosts),
                _limits_of(plan.limits),
            )
        if isinstance(plan, ScoringPlan):
            targets = [list(target) for target in plan.targets]
            leaves = np.asarray(plan.leaves, dtype=_ID).tobytes()
            is_attribution = isinstance(plan, AttributionPlan)
            boosts, limits = _boosts_of(plan.boosts), _limits_of(plan.limits)
            return WireScoring(prompts, targets, leaves, plan.k, is_attribution, boosts, limits)
        assert isinstance(plan, TextPlan), f"{type(plan).__name__} cannot be sent"
        return WireText(prompts, plan.max_new_tokens, plan.num_beams, plan.temperature, plan.top_p, plan.seed)

    def _eligibility_of(self, eligibility: Eligibility, version: int) -> WireEligibility:
        base = eligibility.base
        members = None
        if base.key and self._sent.get(version, base.key) is None:
            members = np.packbits(base.is_member).tobytes()
            self._sent.put(version, base.key, value=True, num_bytes=len(members))
        included = None if eligibility.included is None else _bytes_of(eligibility.included)
        return WireEligibility(base.key, members, _bytes_of(eligibility.excluded), included)


class PlanReader:
    """Reads the plans of one connection. Raises KeyError for a filter that never travelled."""

    def __init__(self) -> None:
        self._filters: FilterTable[LeafMask] = FilterTable()

    def read(
        self, wire: WirePlan, slot: int, all_active: LeafMask, merchandise: Merchandise
    ) -> RankingPlan | ScoringPlan | TextPlan:
        """`slot` and the others are those of the plan's version; `all_active` are its active items."""
        common = _common_fields(wire.prompts, slot)
        if isinstance(wire, WireSearch):
            eligibility = self._eligibility(wire.eligibility, wire.prompts.version, all_active)
            return RankingPlan(
                **common,
                eligibility=eligibility,
                boosts=_boosts(wire.boosts, merchandise, eligibility.base),
                limits=_limits(wire.limits, merchandise),
                k=wire.k,
                num_beams=wire.num_beams,
                length_penalty=wire.length_penalty,
                certified=wire.certified,
            )
        if isinstance(wire, WireScoring):
            targets = tuple(tuple(target) for target in wire.targets)
            leaves = tuple(np.frombuffer(wire.leaves, dtype=_ID).tolist())
            kind = AttributionPlan if wire.is_attribution else ScoringPlan
            return kind(
                **common,
                targets=targets,
                leaves=leaves,
                k=wire.k,
                boosts=_boosts(wire.boosts, merchandise, all_active),
                limits=_limits(wire.limits, merchandise),
            )
        return TextPlan(
            **common,
            max_new_tokens=wire.max_new_tokens,
            num_beams=wire.num_beams,
            temperature=wire.temperature,
            top_p=wire.top_p,
            seed=wire.seed,
        )

    def skip(self, wire: WirePlan) -> None:
        """Take note of a plan that cannot be read: its filter is the latest one at the other end.

        A filter that came with it is not kept: without it, this end only forgets later than the other one.
        """
        if isinstance(wire, WireSearch) and wire.eligibility.filter_key:
            self._filters.get(wire.prompts.version, wire.eligibility.filter_key)

    def _eligibility(self, wire: WireEligibility, version: int, all_active: LeafMask) -> Eligibility:
        excluded = np.frombuffer(wire.excluded, _ID)
        included = None if wire.included is None else np.frombuffer(wire.included, dtype=_ID)
        return Eligibility(self._base(wire, version, all_active), excluded, included)

    def _base(self, wire: WireEligibility, version: int, all_active: LeafMask) -> LeafMask:
        if not wire.filter_key:
            return all_active
        if wire.members is not None:
            num_leaves = len(all_active.is_member)
            bits = np.unpackbits(np.frombuffer(wire.members, dtype=np.uint8), count=num_leaves)
            mask = LeafMask.of(bits.view(np.bool_), wire.filter_key)
            self._filters.put(version, wire.filter_key, mask, len(wire.members))
            return mask
        found = self._filters.get(version, wire.filter_key)
        if found is None:
            raise KeyError(wire.filter_key.hex())
        return found


def _boosts_of(boosts: Boosts | None) -> WireBoosts | None:
    if boosts is None:
        return None
    columns = [(name, list(factors)) for name, factors in boosts.table.spec.columns]
    extra = boosts.extra.astype("<f4", copy=False).tobytes()
    return WireBoosts(columns, boosts.table.spec.has_rules, _bytes_of(boosts.leaves), extra)


def _boosts(wire: WireBoosts | None, merchandise: Merchandise, mask: LeafMask) -> Boosts | None:
    if wire is None:
        return None
    spec = BoostSpec(tuple((name, tuple(factors)) for name, factors in wire.columns), wire.has_rules)
    leaves, extra = np.frombuffer(wire.leaves, dtype=_ID), np.frombuffer(wire.extra, dtype="<f4")
    return Boosts(merchandise.table(spec, mask), leaves, extra)


def _limits_of(limits: Sequence[Limit]) -> WireLimits:
    return [(limit.column, limit.most) for limit in limits]


def _limits(wire: WireLimits, merchandise: Merchandise) -> tuple[Limit, ...]:
    return tuple([merchandise.limit(column, most) for column, most in wire]) if wire else ()


def _prompts_of(plan: Plan, version: int) -> WirePrompts:
    prompts = [
        WirePrompt(
            prompt.input_ids.tobytes(),
            prompt.whole_word_ids.tobytes(),
            prompt.category_ids.tobytes(),
            list(prompt.image_items),
            prompt.num_tokens_untruncated,
        )
        for prompt in plan.prompts
    ]
    return WirePrompts(version, plan.task, plan.template, prompts, _features_of(plan.features))


def _features_of(features: Sequence[NDArray[np.floating]]) -> WireFeatures | None:
    if not len(features):
        return None
    if isinstance(features, SharedFeatures):
        places = [place.astype("<i8", copy=False).tobytes() for place in features.places]
        return WireFeatures(features.rows.tobytes(), features.rows.dtype.str, features.rows.shape[1], places)
    if len(features) == 1:
        (rows,) = features
        return WireFeatures(rows.tobytes(), rows.dtype.str, rows.shape[1])
    ends = np.cumsum([len(rows) for rows in features])
    places = [np.arange(end - len(rows), end, dtype="<i8").tobytes() for rows, end in zip(features, ends, strict=True)]
    joined = np.concatenate(list(features))
    return WireFeatures(joined.tobytes(), joined.dtype.str, joined.shape[1], places)


def _common_fields(wire: WirePrompts, slot: int) -> dict[str, Any]:
    prompts = tuple([_prompt(each) for each in wire.prompts])
    features = _features(wire.features)
    return {"slot": slot, "task": wire.task, "template": wire.template, "prompts": prompts, "features": features}


def _prompt(wire: WirePrompt) -> Prompt:
    return Prompt(
        np.frombuffer(wire.input_ids, _PROMPT_ID),
        np.frombuffer(wire.whole_word_ids, _PROMPT_ID),
        np.frombuffer(wire.category_ids, _PROMPT_ID),
        tuple(wire.image_items),
        wire.num_tokens_untruncated,
    )


def _features(wire: WireFeatures | None) -> Sequence[NDArray[np.floating]]:
    if wire is None:
        return ()
    rows = np.frombuffer(wire.rows, dtype=wire.dtype).reshape(-1, wire.dim)
    if wire.places is None:
        return (rows,)
    return SharedFeatures(rows, [np.frombuffer(place, dtype="<i8") for place in wire.places])


def _bytes_of(ids: NDArray[np.integer]) -> bytes:
    return ids.astype(_ID, copy=False).tobytes()
