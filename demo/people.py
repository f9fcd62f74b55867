"""The demonstration's customers: their tastes and purchases. Independent of pictures and models.

A customer's next purchase usually shares two of colour, pattern and style with the last one; sometimes it is of the
favourite look. About half of the purchases are of the regular range, the rest of the season.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from demo.designs import LOOKS, Assortment, Design, Item, Look, Season

_FIRST_NAMES = (
    *("Ada", "Amir", "Anna", "Bela", "Carl", "Cleo", "Dana", "Diego", "Edith", "Elio", "Emma", "Farid", "Fern", "Gita"),
    *("Greta", "Hugo", "Ida", "Ines", "Ivan", "Jana", "Joel", "Kai", "Kira", "Lars", "Lena", "Luis", "Maja", "Milo"),
    *("Mira", "Nadia", "Nils", "Noor", "Olga", "Omar", "Otto", "Pia", "Quinn", "Rosa", "Rune", "Sami", "Sofia", "Theo"),
    *("Tilda", "Uma", "Vera", "Wim", "Xenia", "Yara", "Yusuf", "Zoe"),
)
_FAMILY_NAMES = ("Abel", "Brook", "Castro", "Dahl", "Eriksen", "Fontaine", "Gray", "Haas", "Ito", "Jansen")
_HISTORY_LENGTHS: dict[Season, range] = {
    "spring": range(5, 13),
    "summer": range(3, 4),  # it has just begun
}

# Which traits the next purchase keeps from the last one, and how often.
_CARRIED: tuple[tuple[frozenset[str], float], ...] = (
    (frozenset({"colour", "pattern"}), 0.40),
    (frozenset({"colour", "style"}), 0.35),
    (frozenset({"pattern", "style"}), 0.10),
    (frozenset(), 0.15),  # the favourite look
)
_FIRST_NUMBER: dict[Season, int] = {"spring": 10_001, "summer": 30_001}
_SEASON_STARTS: dict[Season, int] = {"spring": 1_772_323_200, "summer": 1_780_272_000}
_SEASON_LENGTH = 92 * 24 * 3600


@dataclass(frozen=True)
class Taste:
    """A customer's favourite look and kinds."""

    look: Look
    kinds: frozenset[str]

    def rating(self, design: Design) -> int:
        """2 stars, and one more for each trait that matches."""
        own, liked = design.look, self.look
        return 2 + (own.colour == liked.colour) + (own.pattern == liked.pattern) + (own.style == liked.style)


@dataclass(frozen=True)
class Purchase:
    """An item, and the Unix time at which it was bought."""

    item: Item
    timestamp: int


@dataclass(frozen=True)
class Person:
    """A customer of one domain in one season. `history` is oldest first."""

    user_id: str
    index: str
    name: str
    taste: Taste
    history: tuple[Purchase, ...]


def make_people(
    assortment: Assortment, items: Sequence[Item], season: Season, num_people: int, seed: int
) -> tuple[Person, ...]:
    """Customers of a season; they buy items of the regular range and of that season."""
    chance = random.Random(f"{assortment.domain} {season} people {seed}")
    shelf = _Shelf([item for item in items if item.range in ("regular", season)])
    return tuple(
        _person(number, season, shelf, chance)
        for number in range(_FIRST_NUMBER[season], _FIRST_NUMBER[season] + num_people)
    )


class _Shelf:
    """The items on sale, indexed by shared traits."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.looks = [look for look in LOOKS if any(item.design.look == look for item in items)]
        self._matching: dict[tuple[frozenset[str], Look], list[Item]] = {}
        for traits, _ in _CARRIED:
            for look in LOOKS:
                self._matching[traits, look] = [item for item in items if _shares(traits, look, item.design.look)]

    def matching(self, traits: frozenset[str], look: Look) -> list[Item]:
        return self._matching[traits, look]


def _shares(traits: frozenset[str], first: Look, second: Look) -> bool:
    return all(getattr(first, trait) == getattr(second, trait) for trait in traits)


def _person(number: int, season: Season, shelf: _Shelf, chance: random.Random) -> Person:
    kinds = sorted({item.design.kind.name for item in shelf.items})
    taste = Taste(
        look=chance.choice(shelf.looks),
        kinds=frozenset(chance.sample(kinds, 3)),
    )
    return Person(
        user_id=f"user-{number}",
        index=str(number),
        name=f"{chance.choice(_FIRST_NAMES)} {chance.choice(_FAMILY_NAMES)}",
        taste=taste,
        history=_history(taste, season, shelf, chance),
    )


def _history(taste: Taste, season: Season, shelf: _Shelf, chance: random.Random) -> tuple[Purchase, ...]:
    bought: list[Item] = []
    for _ in range(chance.choice(_HISTORY_LENGTHS[season])):
        last = bought[-1].design if bought else None
        left = [item for item in _considered(taste, last, shelf, chance) if item not in bought]
        if left:
            bought.extend(chance.choices(left, [_appeal(item.design, taste, last) for item in left]))
    start = _SEASON_STARTS[season]
    times = sorted(chance.randrange(start, start + _SEASON_LENGTH) for _ in bought)
    return tuple(Purchase(item, time) for item, time in zip(bought, times, strict=True))


def _considered(taste: Taste, last: Design | None, shelf: _Shelf, chance: random.Random) -> list[Item]:
    """Items that share traits with the last purchase, or that have the favourite colour and pattern."""
    if last is not None:
        (carried,) = chance.choices([traits for traits, _ in _CARRIED], [share for _, share in _CARRIED])
        if carried:
            return shelf.matching(carried, last.look)
    return shelf.matching(frozenset({"colour", "pattern"}), taste.look)


def _appeal(design: Design, taste: Taste, last: Design | None) -> float:
    """Weight of an item: favourite kinds count twice, repeating the last kind is rare."""
    is_favourite = design.kind.name in taste.kinds
    is_repeated = last is not None and design.kind == last.kind
    return math.exp(0.7 * is_favourite - 1.0 * is_repeated)
