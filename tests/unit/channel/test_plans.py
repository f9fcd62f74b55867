"""A plan is the same after its way through a channel."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.leaf_boosts import Boosts, BoostSpec, BoostTable
from model.decoding.leaf_groups import LeafGroups, Limit
from model.decoding.leaf_intervals import NOTHING
from model.engine.plans import AttributionPlan, Plan, RankingPlan, ScoringPlan, SharedFeatures, TextPlan
from model.prompts.prompt import Prompt
from service.channel.plan_messages import WirePlan, WireSearch
from service.channel.plans import FilterTable, PlanReader, PlanWriter
from tests.unit.decoding.tables import build_trie

P = TypeVar("P", bound=Plan)

NUM_LEAVES = 23
ALL_ACTIVE = LeafMask.of(np.ones(NUM_LEAVES, dtype=np.bool_))
DECODER: msgspec.msgpack.Decoder[WirePlan] = msgspec.msgpack.Decoder(WirePlan)
ids = st.integers(0, 2**31 - 1)


INTERVALS = build_trie([(number,) for number in range(2, 2 + NUM_LEAVES)]).intervals
GROUPS = LeafGroups(None, np.zeros(NUM_LEAVES, dtype=np.int32))


class Merchandise:
    """Tables that know their specification and filter."""

    def table(self, spec: BoostSpec, mask: LeafMask) -> BoostTable:
        return BoostTable(INTERVALS, lambda: np.where(mask.is_member, np.float32(0), NOTHING), spec)

    def limit(self, column: str, most: int) -> Limit:
        return Limit(column, lambda: GROUPS, most)


MERCHANDISE = Merchandise()


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    length = draw(st.integers(1, 9))
    arrays = [np.array(draw(st.lists(ids, min_size=length, max_size=length)), dtype=np.int64) for _ in range(3)]
    images = tuple(draw(st.lists(st.integers(0, NUM_LEAVES), max_size=3)))
    return Prompt(arrays[0], arrays[1], arrays[2], images, length + draw(st.integers(0, 5)))


@st.composite
def features(draw: st.DrawFn, num_prompts: int) -> Any:  # noqa: ANN401
    kind = draw(st.sampled_from(["none", "separate", "shared"]))
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if kind == "none":
        return ()
    if kind == "separate":
        sizes = [draw(st.integers(0, 3)) for _ in range(num_prompts)]
        return tuple(rng.standard_normal((size, 4)).astype(dtype) for size in sizes)
    rows = rng.standard_normal((5, 4)).astype(dtype)
    places = [np.array(draw(st.lists(st.integers(0, 4), max_size=3)), dtype=np.int64) for _ in range(num_prompts)]
    return SharedFeatures(rows, places)


@st.composite
def eligibilities(draw: st.DrawFn) -> Eligibility:
    base = ALL_ACTIVE
    if draw(st.booleans()):
        members = draw(st.lists(st.booleans(), min_size=NUM_LEAVES, max_size=NUM_LEAVES))
        base = LeafMask.of(np.array(members), key=bytes(members))
    leaves = st.lists(st.integers(0, NUM_LEAVES - 1), max_size=5)
    return Eligibility.of(base, exclude=draw(leaves), include=draw(st.none() | leaves))


def common(draw: st.DrawFn, num_prompts: int) -> dict[str, Any]:
    return {
        "slot": 7,
        "task": draw(st.sampled_from(["sequential", "direct", "explanation"])),
        "template": "A-3",
        "prompts": tuple(draw(prompts()) for _ in range(num_prompts)),
        "features": draw(features(num_prompts)),
    }


@st.composite
def merchandise(draw: st.DrawFn, mask: LeafMask) -> dict[str, Any]:
    limits = tuple(MERCHANDISE.limit(column, 2) for column in draw(st.sets(st.sampled_from(["brand", "colour"]))))
    if draw(st.booleans()):
        return {"limits": limits}
    columns = draw(st.sampled_from([(), (("brand", (("Lego", 1.5), ("Ravn", 0.1))), ("colour", (("red", 2.0),)))]))
    leaves = np.array(sorted(draw(st.sets(st.integers(0, NUM_LEAVES - 1), max_size=3))), dtype=np.int32)
    extra = np.linspace(-1, 1, len(leaves), dtype=np.float32)
    table = MERCHANDISE.table(BoostSpec(columns, draw(st.booleans())), mask)
    return {"limits": limits, "boosts": Boosts(table, leaves, extra)}


@st.composite
def plans(draw: st.DrawFn) -> RankingPlan | ScoringPlan | TextPlan:
    kind = draw(st.sampled_from([RankingPlan, ScoringPlan, AttributionPlan, TextPlan]))
    if kind is RankingPlan:
        penalty = draw(st.floats(-2, 2))
        eligibility = draw(eligibilities())
        return RankingPlan(
            **common(draw, 1),
            **draw(merchandise(eligibility.base)),
            eligibility=eligibility,
            k=3,
            num_beams=9,
            length_penalty=penalty,
            certified=draw(st.booleans()),
        )
    if kind is ScoringPlan or kind is AttributionPlan:
        number = draw(st.integers(0, 4))
        leaves = tuple(draw(st.lists(st.integers(0, NUM_LEAVES - 1), min_size=number, max_size=number)))
        more = draw(merchandise(ALL_ACTIVE))
        return kind(**common(draw, number), **more, targets=((5, 1), (6, 1)), leaves=leaves, k=2)
    seed = draw(st.none() | st.integers(0, 2**63 - 1))
    return TextPlan(**common(draw, 1), max_new_tokens=9, num_beams=1, temperature=0.7, top_p=0.9, seed=seed)


def sent(wire: WirePlan) -> WirePlan:
    """What arrives."""
    return DECODER.decode(msgspec.msgpack.encode(wire))


def same(one: Plan, other: Plan) -> None:
    assert type(one) is type(other)
    for name in one.__dataclass_fields__:
        if name not in {"prompts", "features", "eligibility", "degraded", "scored", "boosts", "limits"}:
            assert getattr(one, name) == getattr(other, name), name
    for prompt, arrived in zip(one.prompts, other.prompts, strict=True):
        assert (prompt.image_items, prompt.num_tokens_untruncated) == (
            arrived.image_items,
            arrived.num_tokens_untruncated,
        )
        for name in ("input_ids", "whole_word_ids", "category_ids"):
            equal(getattr(prompt, name), getattr(arrived, name))
    if isinstance(one, RankingPlan | ScoringPlan) and isinstance(other, RankingPlan | ScoringPlan):
        assert [(each.column, each.most) for each in one.limits] == [(each.column, each.most) for each in other.limits]
        assert (one.boosts is None) == (other.boosts is None)
        if one.boosts is not None and other.boosts is not None:
            assert one.boosts.table.spec == other.boosts.table.spec
            equal(one.boosts.of_leaves(np.arange(NUM_LEAVES)), other.boosts.of_leaves(np.arange(NUM_LEAVES)))
    assert len(one.features) == len(other.features)
    for rows, arrived_rows in zip(one.features, other.features, strict=True):
        equal(rows, arrived_rows)
    if isinstance(one, RankingPlan) and isinstance(other, RankingPlan):
        equal(one.eligibility.mask(), other.eligibility.mask())
        equal(one.eligibility.base.cumulative, other.eligibility.base.cumulative)
        assert (one.eligibility.included is None) == (other.eligibility.included is None)


def equal(one: NDArray[Any], other: NDArray[Any]) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


@settings(suppress_health_check=[HealthCheck.too_slow])  # which depends on what else the machine does
@given(st.lists(plans(), max_size=6))
def test_plans_arrive_as_they_were_sent(sequence: list[RankingPlan | ScoringPlan | TextPlan]) -> None:
    writer, reader = PlanWriter(), PlanReader()
    for plan in sequence:
        same(plan, reader.read(sent(writer.write(plan, 4)), 7, ALL_ACTIVE, MERCHANDISE))


def search(members: list[bool]) -> RankingPlan:
    two = np.ones(2, dtype=np.int64)
    prompt = Prompt(two, two, two, (), 2)
    mask = LeafMask.of(np.array(members), key=bytes(members))
    return RankingPlan(
        slot=7, task="sequential", template="A-3", prompts=(prompt,), eligibility=Eligibility.of(mask), k=1, num_beams=1
    )


def test_the_members_of_a_filter_travel_once_and_stay_one_object() -> None:
    writer, reader = PlanWriter(), PlanReader()
    plan = search([True] * 4)
    first, second = sent(writer.write(plan, 1)), sent(writer.write(plan, 1))
    assert isinstance(first, WireSearch)
    assert isinstance(second, WireSearch)
    assert first.eligibility.members is not None
    assert second.eligibility.members is None
    masks = [reader.read(each, 7, ALL_ACTIVE, MERCHANDISE).eligibility.base for each in (first, second)]  # type: ignore[union-attr]
    assert masks[0] is masks[1]  # the engine tells filters apart by identity


def test_a_plan_that_was_skipped_leaves_both_ends_alike() -> None:
    writer, reader = PlanWriter(), PlanReader()
    reader.skip(sent(writer.write(search([True, False]), 1)))
    reader.read(sent(writer.write(search([True, True]), 2)), 7, ALL_ACTIVE, MERCHANDISE)


def test_a_filter_that_never_came_is_noticed() -> None:
    writer = PlanWriter()
    writer.write(search([True]), 1)
    with pytest.raises(KeyError):
        PlanReader().read(sent(writer.write(search([True]), 1)), 7, ALL_ACTIVE, MERCHANDISE)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_both_ends_forget_the_same_filters(uses: list[tuple[int, int]]) -> None:
    """A table that sends what the other end does not know never asks for what that has forgotten."""
    ours: FilterTable[bool] = FilterTable(max_bytes=50)
    theirs: FilterTable[bool] = FilterTable(max_bytes=50)
    for version, number in uses:
        key = bytes([number])
        if ours.get(version, key) is None:
            ours.put(version, key, value=True, num_bytes=number + 5)
            theirs.put(version, key, value=True, num_bytes=number + 5)
        else:
            assert theirs.get(version, key)


def test_both_ends_forget_the_same_filters_after_plans_that_could_not_be_read() -> None:
    writer, reader = PlanWriter(), PlanReader()
    for table in (writer._sent, reader._filters):
        table._max_bytes = 2 * 3  # two filters of 23 bits
    masks = [LeafMask.of(np.arange(NUM_LEAVES) % 5 != number, key=bytes([number])) for number in range(3)]

    def written(number: int) -> WireSearch:
        plan = RankingPlan(
            slot=0, task="sequential", template="A-3", prompts=(), features=(), num_beams=1, certified=False,
            eligibility=Eligibility.of(masks[number]), k=1, length_penalty=0.0,
        )  # fmt: skip
        wire = writer.write(plan, 7)
        assert isinstance(wire, WireSearch)
        return wire

    for number in (0, 1):
        reader.read(written(number), 0, ALL_ACTIVE, MERCHANDISE)
    reader.skip(written(0))  # which is now the latest one at both ends
    for number in (2, 0):
        reader.read(written(number), 0, ALL_ACTIVE, MERCHANDISE)
