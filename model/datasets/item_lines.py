"""Lines `user item item …`, in which users and items are texts without blanks, kept as they are.

VIP5's `sequential_data.txt` and `negative_samples.txt` are such files, in which all texts are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from model.bundle.joins import Rows
from model.datasets.dataset import Sequences
from model.datasets.ids import is_number, number_order
from model.datasets.text_lines import Source, numbered_lines, require_some
from model.errors import DatasetError

_FORM = "lines `user item item …`"


@dataclass(frozen=True)
class ItemLines:
    """Users in the file's order, each with its items."""

    users: tuple[str, ...]
    items: tuple[tuple[str, ...], ...]

    def item_names(self) -> list[str]:
        """The distinct items, in catalog order."""
        return in_catalog_order(chain.from_iterable(self.items))

    def rows(self, row_of_item: Mapping[str, int]) -> Sequences:
        """The interactions, with items as rows of a catalog."""
        lengths = [len(items) for items in self.items]
        flat = np.fromiter((row_of_item[name] for items in self.items for name in items), np.int64, sum(lengths))
        return Sequences(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def by_user_row(
        self, row_of_user: Mapping[str, int], row_of_item: Mapping[str, int], source: Source
    ) -> dict[int, NDArray[np.int64]]:
        """Item rows by user row; unknown users and items are counted as faults of the source.

        Raises DatasetError if no line has a known user and item.
        """
        users, rows = Rows(row_of_user), Rows(row_of_item)
        found: dict[int, NDArray[np.int64]] = {}
        for user, items in zip(self.users, self.items, strict=True):
            row = users.find(user)
            if row is None:
                source.faults.add("the user has no interactions", f"{source.path.name}: user {user}")
                continue
            if row in found:
                source.faults.add("the user is listed twice", f"{source.path.name}: user {user}")
                continue
            known = []
            for item in items:
                place = rows.find(item)
                if place is None:
                    source.faults.add("the item is unknown", f"{source.path.name}: user {user}, item {item}")
                else:
                    known.append(place)
            found[row] = np.asarray(known, dtype=np.int64)
        if not any(len(known) for known in found.values()):
            require_some(source, len(self.users), 0, f"{_FORM} of known users and items")
        return found


def read_item_lines(source: Source, *, only_numbers: bool = False) -> ItemLines:
    """Read all lines and skip broken ones; with `only_numbers`, a line with another text is broken.

    Raises DatasetError if no line is valid.
    """
    items_of: dict[str, tuple[str, ...]] = {}
    num_lines = 0
    for number, text in numbered_lines(source):
        num_lines += 1
        user, *items = text.split()
        if only_numbers and not all(map(is_number, (user, *items))):
            source.fault("the line has a value that is not a number", number)
        elif not items:
            source.fault("the line has a user and no item", number)
        elif user in items_of:
            source.fault("the user is listed twice", number)
        else:
            items_of[user] = tuple(items)
    if not num_lines:
        raise DatasetError(f"{source.path} is empty; it must have {_FORM}")
    require_some(source, num_lines, len(items_of), _FORM)
    return ItemLines(tuple(items_of), tuple(items_of.values()))


def in_catalog_order(names: Iterable[str]) -> list[str]:
    """The distinct names: numbers in ascending order, then texts by first appearance."""
    distinct = list(dict.fromkeys(names))
    numbers = sorted(filter(is_number, distinct), key=number_order)
    return numbers + [name for name in distinct if not is_number(name)]


def indexing_of(indices: Sequence[str], sequences: Sequences) -> str:
    """How identifiers were chosen: `sequential` if they number items by first appearance, else `given`."""
    _, first = np.unique(sequences.items, return_index=True)
    by_appearance = sequences.items[np.sort(first)]
    numbers = [indices[row] for row in by_appearance]
    is_counted = all(index == str(number) for number, index in enumerate(numbers, start=1))
    return "sequential" if is_counted and numbers else "given"
