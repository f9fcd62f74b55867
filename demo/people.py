"""Who shops in the demonstration: people with tastes, and what they have bought. Knows no pictures and no model."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.designs import COLOURS, PATTERNS, STYLES, Assortment, Design, Item

_FIRST_NAMES = (
    *("Ada", "Amir", "Anna", "Bela", "Carl", "Cleo", "Dana", "Diego", "Edith", "Elio", "Emma", "Farid", "Fern", "Gita"),
    *("Greta", "Hugo", "Ida", "Ines", "Ivan", "Jana", "Joel", "Kai", "Kira", "Lars", "Lena", "Luis", "Maja", "Milo"),
    *("Mira", "Nadia", "Nils", "Noor", "Olga", "Omar", "Otto", "Pia", "Quinn", "Rosa", "Rune", "Sami", "Sofia", "Theo"),
    *("Tilda", "Uma", "Vera", "Wim", "Xenia", "Yara", "Yusuf", "Zoe"),
)
_FAMILY_NAMES = ("Abel", "Brook", "Castro", "Dahl", "Eriksen", "Fontaine", "Gray", "Haas", "Ito", "Jansen")
_LONGEST_HISTORY = 14
_SHORTEST_HISTORY = 5


@dataclass(frozen=True)
class Person:
    """A user of one domain. `history` holds item ids, oldest first."""

    user_id: str
    index: str
    name: str
    history: tuple[str, ...]


def make_people(assortment: Assortment, items: Sequence[Item], num_people: int, seed: int) -> tuple[Person, ...]:
    """Each person buys what suits their taste, and often something that goes with the last purchase."""
    chance = random.Random(f"{assortment.domain} people {seed}")
    names = chance.sample([f"{first} {family}" for first in _FIRST_NAMES for family in _FAMILY_NAMES], num_people)
    return tuple(
        Person(user_id=f"user-{number:04d}", index=str(number), name=name, history=_history(assortment, items, chance))
        for number, name in enumerate(names, start=1)
    )


def _history(assortment: Assortment, items: Sequence[Item], chance: random.Random) -> tuple[str, ...]:
    taste = _taste(assortment, chance)
    left = list(items)
    bought: list[Item] = []
    for _ in range(chance.randint(_SHORTEST_HISTORY, _LONGEST_HISTORY)):
        last = bought[-1].design if bought else None
        appeal = [math.exp(_liking(item.design, taste) + _match(item.design, last)) for item in left]
        (item,) = chance.choices(left, appeal)
        left.remove(item)
        bought.append(item)
    return tuple(item.item_id for item in bought)


def _taste(assortment: Assortment, chance: random.Random) -> dict[str, float]:
    """How much each trait is liked: a few strongly, the rest not in particular."""
    traits = chance.sample(list(COLOURS), 2) + chance.sample(PATTERNS, 1) + chance.sample(STYLES, 1)
    kinds = chance.sample([kind.name for kind in assortment.kinds], 3)
    return dict.fromkeys(traits, 2.0) | dict.fromkeys(kinds, 1.5)


def _liking(design: Design, taste: Mapping[str, float]) -> float:
    return sum(taste.get(trait, 0.0) for trait in (design.kind.name, design.colour, design.pattern, design.style))


def _match(design: Design, last: Design | None) -> float:
    """The same look once more, but rarely the same thing twice in a row."""
    if last is None:
        return 0.0
    same_look = (design.colour == last.colour) + (design.pattern == last.pattern) + (design.style == last.style)
    return 1.0 * same_look - 2.0 * (design.kind == last.kind)
