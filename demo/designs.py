"""The demonstration's items: their traits, and the catalogs made of them. Independent of pictures and models.

A shop has a regular range, which is always on sale, and the items of each season. In each of these, every look (colour,
pattern, style) occurs once. Neither title nor index of an item reveals its look; only the picture does.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

RGB = tuple[int, int, int]
Pattern = Literal["plain", "striped", "dotted", "checked"]
Style = Literal["classic", "retro", "modern"]
Season = Literal["spring", "summer"]
Range = Literal["regular", "spring", "summer"]

COLOURS: dict[str, RGB] = {
    "red": (214, 57, 54),
    "yellow": (245, 201, 57),
    "green": (76, 160, 84),
    "blue": (52, 104, 192),
    "pink": (233, 122, 164),
    "brown": (139, 94, 60),
}
PATTERNS: tuple[Pattern, ...] = ("plain", "striped", "dotted", "checked")
STYLES: tuple[Style, ...] = ("classic", "retro", "modern")
RANGES: tuple[Range, ...] = ("regular", "spring", "summer")


@dataclass(frozen=True)
class Kind:
    """A kind of thing, such as a duck or a coat. `price` is that of a plain classic one."""

    name: str
    category: str
    price: float
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """The traits of an item that only its picture shows."""

    colour: str
    pattern: Pattern
    style: Style


@dataclass(frozen=True)
class Design:
    """All traits of an item; its picture shows them all."""

    kind: Kind
    look: Look


@dataclass(frozen=True)
class Item:
    """A row of a catalog. `index` is the text that the model generates for it."""

    item_id: str
    index: str
    title: str
    price: float
    range: Range
    design: Design

    @property
    def is_active(self) -> bool:
        """It is summer: spring's items appear in histories, but are no longer on sale."""
        return self.range != "spring"


@dataclass(frozen=True)
class Assortment:
    """What a domain sells. Its items are identified by number, as in VIP5, or by name."""

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
ASSORTMENTS = (TOYS, GARMENTS)
LOOKS = tuple(Look(*traits) for traits in itertools.product(COLOURS, PATTERNS, STYLES))

_STYLE_SURCHARGE: dict[Style, float] = {"classic": 1.0, "retro": 1.15, "modern": 1.3}
_ONSETS = ("b", "d", "f", "k", "l", "m", "n", "p", "r", "s", "t", "v")
_CODAS = ("", "l", "n", "r", "s")
_VOWELS = ("a", "e", "i", "o", "u")
_SHARE_SECONDS = 0.1  # of the names that are repeated with `duo` appended


def make_items(assortment: Assortment, seed: int, looks: Sequence[Look] = LOOKS) -> tuple[Item, ...]:
    """All items of a domain in random order: for each look, one item in every range, all of different kinds."""
    chance = random.Random(f"{assortment.domain} {seed}")
    designs = [
        (place, Design(kind, look))
        for look in looks
        for place, kind in zip(RANGES, chance.sample(assortment.kinds, len(RANGES)), strict=True)
    ]
    chance.shuffle(designs)
    names = _names(chance)
    return tuple(
        _item(assortment, number, name, place, design, chance)
        for number, ((place, design), name) in enumerate(zip(designs, names, strict=False), start=1)
    )


def unsold_designs(assortment: Assortment, items: Sequence[Item]) -> list[Design]:
    """All designs that are not in the catalog."""
    sold = {item.design for item in items}
    designs = (Design(kind, look) for kind in assortment.kinds for look in LOOKS)
    return [design for design in designs if design not in sold]


def _item(assortment: Assortment, number: int, name: str, place: Range, design: Design, chance: random.Random) -> Item:
    price = design.kind.price * _STYLE_SURCHARGE[design.look.style] * chance.uniform(0.9, 1.1)
    return Item(
        item_id=f"{assortment.noun}-{number:04d}",
        index=str(number) if assortment.is_numbered else name,
        title=f"{name.capitalize()} {design.kind.name}",
        price=round(price, 2),
        range=place,
        design=design,
    )


def _names(chance: random.Random) -> Iterator[str]:
    """Invented words, each once; some are repeated with `duo` appended."""
    taken: set[str] = set()
    while True:
        name = "".join(chance.choice(_ONSETS) + chance.choice(_VOWELS) for _ in range(2)) + chance.choice(_CODAS)
        if name in taken:
            continue
        taken.add(name)
        yield name
        if chance.random() < _SHARE_SECONDS:
            yield f"{name} duo"
