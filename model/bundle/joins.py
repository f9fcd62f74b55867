"""Joins of two sources by item id, in which names that look alike meet and both sides' leftovers are reported."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

_NUM_NAMED = 3
_BYTE_ORDER_MARK = "\ufeff"

Notice: TypeAlias = Callable[[str], None]
"""Called with one line for a person."""


def no_notice(_line: str) -> None:
    """Tell nobody."""


class Names:
    """Finds ids by names from elsewhere, which may have blanks around them or decomposed letters, as macOS writes."""

    def __init__(self, item_ids: Iterable[str]) -> None:
        self._exact = frozenset(item_ids)
        self._by_form: dict[str, str | None] = {}
        for item_id in self._exact:
            form = _form(item_id)
            self._by_form[form] = None if form in self._by_form else item_id

    def has(self, name: str) -> bool:
        """Whether this very name is an id."""
        return name in self._exact

    def find(self, name: str) -> str | None:
        """The id of this name, else the only one of this form."""
        return name if name in self._exact else self._by_form.get(_form(name))


class Rows:
    """Rows by names from elsewhere, found by the same rule."""

    def __init__(self, row_of: Mapping[str, int]) -> None:
        self._row_of = row_of
        self._names = Names(row_of)

    def find(self, name: str) -> int | None:
        found = self._names.find(name)
        return None if found is None else self._row_of[found]


@dataclass(frozen=True)
class Join:
    """What met and what did not: `without` are items of no partner, `unmatched` partners of no item."""

    num_items: int
    has: str  # what the items have, such as "an embedding"
    partner: str  # such as "file"
    without: Sequence[str] = ()
    unmatched: Sequence[str] = ()
    of: str = "no item"  # what unmatched partners match
    of_what: str = "items"

    def __str__(self) -> str:
        """`58 of 60 items have an embedding, 2 do not: 'a', 'b'; 1 file matches no item: 'c'`."""
        text = f"{self.num_items - len(self.without):,} of {self.num_items:,} {self.of_what} have {self.has}"
        if self.without:
            text += f", {len(self.without):,} {'does' if len(self.without) == 1 else 'do'} not: {_named(self.without)}"
        if self.unmatched:
            one = len(self.unmatched) == 1
            found = f"{len(self.unmatched):,} {self.partner}{' matches' if one else 's match'} {self.of}"
            text += f"; {found}: {_named(self.unmatched)}"
        return text


def match(names: Sequence[str], item_ids: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Places in `names` by item id, and the names of no item. An exact name goes before one of the same form."""
    known = Names(item_ids)
    places = {name: place for place, name in enumerate(names) if known.has(name)}
    unmatched = []
    for place, name in enumerate(names):
        item_id = known.find(name)
        if item_id is None or places.setdefault(item_id, place) != place:
            unmatched.append(name)
    return places, unmatched


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().strip(_BYTE_ORDER_MARK).strip())


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_NUM_NAMED]))
    return shown + (", …" if len(names) > _NUM_NAMED else "")
