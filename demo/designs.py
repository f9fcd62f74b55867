"""What the demonstration's items are: their traits, and the catalogs made of them. Knows no pictures and no model."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Literal

RGB = tuple[int, int, int]
Pattern = Literal["plain", "striped", "dotted", "checked"]
Style = Literal["classic", "retro", "modern"]

COLOURS: dict[str, RGB] = {
    "red": (214, 57, 54),
    "orange": (238, 134, 38),
    "yellow": (245, 201, 57),
    "green": (76, 160, 84),
    "teal": (38, 150, 156),
    "blue": (52, 104, 192),
    "purple": (126, 82, 168),
    "pink": (233, 122, 164),
    "brown": (139, 94, 60),
    "grey": (128, 134, 142),
}
PATTERNS: tuple[Pattern, ...] = ("plain", "striped", "dotted", "checked")
STYLES: tuple[Style, ...] = ("classic", "retro", "modern")


@dataclass(frozen=True)
class Kind:
    """A sort of thing, such as a duck or a coat. `price` is what a plain classic one costs."""

    name: str
    category: str
    price: float
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """The traits of an item, all of which its picture shows."""

    kind: Kind
    colour: str
    pattern: Pattern
    style: Style


@dataclass(frozen=True)
class Item:
    """A row of a catalog. `index` is the text that the model generates for it."""

    item_id: str
    index: str
    title: str
    price: float
    is_active: bool
    design: Design


@dataclass(frozen=True)
class Assortment:
    """What a domain sells. Its items are known by number, as VIP5's are, or else by words that describe them."""

    domain: str
    noun: str
    kinds: tuple[Kind, ...]
    is_numbered: bool


TOYS = Assortment(
    domain="toys",
    noun="toy",
    is_numbered=True,
    kinds=(
        Kind("ball", "outdoor", 6.0, ("summer", "sport")),
        Kind("kite", "outdoor", 14.0, ("summer", "wind")),
        Kind("duck", "animals", 9.0, ("bath", "toddler")),
        Kind("bear", "animals", 19.0, ("soft", "toddler")),
        Kind("car", "vehicles", 12.0, ("wheels",)),
        Kind("train", "vehicles", 24.0, ("wheels", "rails")),
        Kind("boat", "vehicles", 15.0, ("bath", "summer")),
        Kind("rocket", "space", 17.0, ("night",)),
        Kind("robot", "space", 27.0, ("battery",)),
        Kind("blocks", "building", 21.0, ("toddler", "wood")),
    ),
)
GARMENTS = Assortment(
    domain="garments",
    noun="garment",
    is_numbered=False,
    kinds=(
        Kind("tee", "tops", 15.0, ("summer", "cotton")),
        Kind("jumper", "tops", 45.0, ("winter", "wool")),
        Kind("shirt", "tops", 35.0, ("office", "cotton")),
        Kind("dress", "dresses", 55.0, ("summer", "evening")),
        Kind("skirt", "bottoms", 32.0, ("summer",)),
        Kind("trousers", "bottoms", 49.0, ("office",)),
        Kind("shorts", "bottoms", 25.0, ("summer", "sport")),
        Kind("coat", "outerwear", 120.0, ("winter", "wool")),
        Kind("hat", "accessories", 18.0, ("winter", "wool")),
        Kind("socks", "accessories", 7.0, ("winter", "cotton")),
    ),
)

_STYLE_SURCHARGE: dict[Style, float] = {"classic": 1.0, "retro": 1.15, "modern": 1.3}
_SHARE_SOLD_OUT = 0.04


def make_items(assortment: Assortment, num_items: int, seed: int) -> tuple[Item, ...]:
    """Draw different designs at random; the numbers of numbered items are in random order."""
    chance = random.Random(f"{assortment.domain} {seed}")
    designs = [Design(*traits) for traits in itertools.product(assortment.kinds, COLOURS, PATTERNS, STYLES)]
    chosen = chance.sample(designs, num_items)
    return tuple(_item(assortment, number, design, chance) for number, design in enumerate(chosen, start=1))


def _item(assortment: Assortment, number: int, design: Design, chance: random.Random) -> Item:
    price = design.kind.price * _STYLE_SURCHARGE[design.style] * chance.uniform(0.9, 1.1)
    return Item(
        item_id=f"{assortment.noun}-{number:04d}",
        index=str(number) if assortment.is_numbered else _words(design),
        title=_title(design),
        price=round(price, 2),
        is_active=chance.random() >= _SHARE_SOLD_OUT,
        design=design,
    )


def _words(design: Design) -> str:
    """Kind and colour, then what is out of the ordinary: some texts continue others."""
    words = [design.kind.name, design.colour]
    if design.pattern != "plain":
        words.append(design.pattern)
    if design.style != "classic":
        words.append(design.style)
    return " ".join(words)


def _title(design: Design) -> str:
    surface = "" if design.pattern == "plain" else f"{design.pattern} "
    return f"{design.style.capitalize()} {surface}{design.colour} {design.kind.name}"
