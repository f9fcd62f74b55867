from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from demo.descriptor import DIM, describe
from demo.designs import GARMENTS, TOYS, Assortment, Design, make_items
from demo.drawing import draw
from demo.people import make_people

DUCK = Design(kind=TOYS.kinds[2], colour="yellow", pattern="plain", style="classic")


@pytest.mark.parametrize(
    "change", [{"colour": "blue"}, {"pattern": "dotted"}, {"style": "retro"}, {"kind": GARMENTS.kinds[0]}]
)
def test_every_trait_shows_in_the_picture_and_its_description(change: dict[str, object]) -> None:
    duck, other = draw(DUCK), draw(dataclasses.replace(DUCK, **change))  # type: ignore[arg-type]  # one trait of four
    assert duck.tobytes() != other.tobytes()
    assert float(describe(duck) @ describe(other)) < 0.995


def test_a_description_is_a_unit_vector_of_the_declared_width() -> None:
    description = describe(draw(DUCK))
    assert description.shape == (DIM,)
    assert description.dtype == np.float32
    assert float(np.linalg.norm(description)) == pytest.approx(1.0, abs=1e-6)


def test_a_duck_looks_more_like_a_duck_than_like_a_shirt() -> None:
    duck = describe(draw(DUCK))
    dotted = describe(draw(dataclasses.replace(DUCK, pattern="dotted")))
    shirt = describe(draw(dataclasses.replace(DUCK, kind=GARMENTS.kinds[2])))
    assert float(duck @ dotted) > float(duck @ shirt)


@pytest.mark.parametrize("assortment", [TOYS, GARMENTS], ids=lambda assortment: assortment.domain)
def test_items_are_told_apart_by_id_index_and_design(assortment: Assortment) -> None:
    items = make_items(assortment, 320, seed=1)
    assert len({item.item_id for item in items}) == 320
    assert len({item.index for item in items}) == 320
    assert len({item.design for item in items}) == 320


def test_people_buy_what_looks_alike_more_often_than_chance_has_it() -> None:
    items = make_items(TOYS, 320, seed=1)
    design_of = {item.item_id: item.design for item in items}
    people = make_people(TOYS, items, 100, seed=1)
    pairs = [pair for person in people for pair in zip(person.history, person.history[1:], strict=False)]
    share = np.mean([design_of[first].colour == design_of[second].colour for first, second in pairs])
    assert share > 0.25  # of ten colours
    assert all(len(set(person.history)) == len(person.history) for person in people)
