from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from demo.designs import (
    ASSORTMENTS,
    COLOURS,
    GARMENTS,
    LOOKS,
    PATTERNS,
    RANGES,
    STYLES,
    TOYS,
    Assortment,
    Design,
    Look,
    make_items,
    unsold_designs,
)
from demo.drawing import SIZE, UPRIGHT, Pose, draw

DUCK = Design(kind=TOYS.kinds[2], look=Look("yellow", "plain", "classic"))

each_assortment = pytest.mark.parametrize("assortment", ASSORTMENTS, ids=lambda assortment: assortment.domain)


@pytest.mark.parametrize(
    "other",
    [
        Design(DUCK.kind, Look("blue", "plain", "classic")),
        Design(DUCK.kind, Look("yellow", "dotted", "classic")),
        Design(DUCK.kind, Look("yellow", "plain", "retro")),
        Design(GARMENTS.kinds[0], DUCK.look),
    ],
)
def test_every_trait_shows_in_the_picture(other: Design) -> None:
    assert draw(DUCK).tobytes() != draw(other).tobytes()


def test_a_pose_moves_the_thing_and_keeps_the_picture_s_size() -> None:
    posed = draw(DUCK, Pose.casual(random.Random(1)))
    assert posed.size == (SIZE, SIZE)
    assert posed.tobytes() != draw(DUCK, UPRIGHT).tobytes()


def test_an_upright_pose_leaves_points_where_they_are() -> None:
    assert UPRIGHT.place((12.0, 80.0)) == pytest.approx((12.0, 80.0))


@each_assortment
def test_items_are_told_apart_by_id_index_and_design(assortment: Assortment) -> None:
    items = make_items(assortment, seed=1)
    for values in (
        {item.item_id for item in items},
        {item.index for item in items},
        {item.design for item in items},
    ):
        assert len(values) == len(items) == len(LOOKS) * len(RANGES)


@each_assortment
def test_every_range_has_every_look_once(assortment: Assortment) -> None:
    counts = Counter((item.range, item.design.look) for item in make_items(assortment, seed=1))
    assert len(counts) == len(RANGES) * len(LOOKS)
    assert set(counts.values()) == {1}


@each_assortment
def test_neither_title_nor_index_tells_the_look(assortment: Assortment) -> None:
    look_words = {*COLOURS, *PATTERNS, *STYLES}
    for item in make_items(assortment, seed=1):
        assert not look_words & set(f"{item.title} {item.index}".lower().split())


def test_the_order_of_items_does_not_tell_their_range() -> None:
    ranges = [item.range for item in make_items(TOYS, seed=1)]
    repeats = sum(first == second for first, second in pairwise(ranges))
    assert 0.2 < repeats / len(ranges) < 0.45  # a third, if the order is random


def test_some_names_continue_other_names() -> None:
    names = {item.index for item in make_items(GARMENTS, seed=1)}
    doubled = {name for name in names if name.endswith(" duo")}
    assert doubled
    assert all(name.removesuffix(" duo") in names for name in doubled)


def test_what_is_of_a_season_gone_by_cannot_be_bought() -> None:
    for item in make_items(TOYS, seed=1):
        assert item.is_active == (item.range in {"regular", "summer"})
        assert item.price > 0


def test_what_is_not_sold_and_what_is_make_up_everything() -> None:
    items = make_items(TOYS, seed=1)
    unsold = unsold_designs(TOYS, items)
    assert not {item.design for item in items} & set(unsold)
    assert len(items) + len(unsold) == len(LOOKS) * len(TOYS.kinds)


def test_another_seed_gives_other_items() -> None:
    first, second = make_items(TOYS, seed=1), make_items(TOYS, seed=2)
    assert first == make_items(TOYS, seed=1)
    assert [item.design for item in first] != [item.design for item in second]
