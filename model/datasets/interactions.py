"""Interactions from files with one per line: reading, filtering of the k-core, and ordering by time.

Users and items are numbered in the order of their first appearance, as in VIP5's preprocessing.
"""

# L interactions

from __future__ import annotations

import html
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.bundle.users import Users
from model.datasets.dataset import Review, Sequences, Split
from model.datasets.field_names import FieldNames
from model.datasets.ids import SHORTENED, id_text, is_shortened, missing_id_notices, require_own_numbers
from model.datasets.records import numbered_records, require_good
from model.datasets.text_lines import Source
from model.datasets.times import Times
from model.datasets.values import Fields, UnreadableError, plain, shown
from model.errors import DatasetError

_HELD_OUT: tuple[Split, ...] = ("val", "test")  # a user's last reviews


@dataclass(frozen=True)
class InteractionForm:
    """The fields of a line, and what its faults are called. `of` is the noun of a line."""

    user: str
    item: str
    time: str
    rating: str
    no_ids: str
    no_time: str
    of: str
    of_many: str
    headline: str = ""
    name: str = ""
    ignored: Sequence[str] = ()
    only_text_ids: bool = False
    shows_times: bool = True  # whether faults of times have the value

    def field_names(self) -> FieldNames:
        known = [name for name in (self.user, self.item, self.time, self.rating, self.headline, self.name) if name]
        required = [(name,) for name in (self.user, self.item, self.time)]
        return FieldNames(known, self.ignored, required=required)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Good lines in the file's order; `users` and `items` are places in the lists of ids."""

    users: NDArray[np.int64]  # [L]
    items: NDArray[np.int64]  # [L]
    seconds: NDArray[np.float64]  # [L] since 1970
    ratings: NDArray[np.float64]  # [L] NaN if unknown
    headlines: Sequence[str | None]  # [L]
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    names: Mapping[int, str]  # of users who signed
    numbers: Mapping[str, str]  # places of item ids that the file stores as numbers


@dataclass
class _Ids:
    """Rows of ids by first appearance, and places of ids that the file stores as numbers."""

    rows: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)

    def row(self, own: str, value: object, place: str) -> int:
        if not isinstance(value, str):
            self.numbers.setdefault(own, place)
        return self.rows.setdefault(own, len(self.rows))


@dataclass
class _Lines:
    """The good lines while they are read; whether their times are good is known at the end."""

    user_ids: _Ids = field(default_factory=_Ids)
    item_ids: _Ids = field(default_factory=_Ids)
    users: array[int] = field(default_factory=lambda: array("q"))
    items: array[int] = field(default_factory=lambda: array("q"))
    times: Times = field(default_factory=Times)
    ratings: array[float] = field(default_factory=lambda: array("d"))
    headlines: list[str | None] = field(default_factory=list)
    called: dict[int, str] = field(default_factory=dict)
    numbers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, record: Mapping[str, object], form: InteractionForm, source: Source, number: int) -> None:
        """Add a line, or count it as a fault."""
        user_value, item_value, time = (record.get(name) for name in (form.user, form.item, form.time))
        user_id, item_id = _id(user_value, form), _id(item_value, form)
        place = source.place(number)
        if user_id is None or item_id is None:
            absent = [value for value in (user_value, item_value) if plain(value) is None]
            if absent:
                source.fault(form.no_ids, number)
            else:
                field_name = form.user if user_id is None else form.item
                kind = "a text, which keeps leading zeros" if form.only_text_ids else "an id"
                Fields(record, source.faults, place).unread(field_name, kind)
            return
        if is_shortened(user_id) or is_shortened(item_id):
            source.fault(SHORTENED, number)
            return
        try:
            self.times.add(time)
        except UnreadableError:
            source.faults.add(form.no_time, f"{place}: {shown(time)}" if form.shows_times else place)
            return
        fields = Fields(record, source.faults, place)
        rating = fields.number(form.rating)
        user = self.user_ids.row(user_id, user_value, place)
        self.users.append(user)
        self.items.append(self.item_ids.row(item_id, item_value, place))
        self.ratings.append(np.nan if rating is None else rating)
        self.numbers.append(number)
        if form.headline:
            self.headlines.append(fields.text(form.headline, clean=html.unescape))
        name = fields.text(form.name, clean=html.unescape) if form.name else None
        if name is not None:
            self.called.setdefault(user, name)


def read_interactions(source: Source, form: InteractionForm) -> Interactions:
    """Read all lines; broken ones are skipped and counted. Raises DatasetError if none is good."""
    names = form.field_names()
    lines = _Lines()
    for number, record in numbered_records(source, names):
        lines.add(record, form, source, number)
    for ids, places, field_name in (
        (lines.user_ids, lines.users, form.user),
        (lines.item_ids, lines.items, form.item),
    ):
        require_own_numbers(ids.numbers, ids.rows)
        lines_of = dict(zip(ids.rows, np.bincount(places, minlength=len(ids.rows)).tolist(), strict=True))
        for notice in missing_id_notices(lines_of, field_name, source.path.name):
            source.faults.notice(notice)
    due = f"{form.of} with {form.user}, {form.item} and {form.time}"
    require_good(source, len(lines.users), due, names)
    seconds = lines.times.seconds(lines.numbers, source, form.time)
    kept = _good(lines, seconds, source, form)
    require_good(source, len(kept), due, names)
    return Interactions(
        users=np.array(lines.users)[kept],
        items=np.array(lines.items)[kept],
        seconds=seconds[kept],
        ratings=np.array(lines.ratings)[kept],
        headlines=[lines.headlines[place] for place in kept] if form.headline else [None] * len(kept),
        user_ids=list(lines.user_ids.rows),
        item_ids=list(lines.item_ids.rows),
        names=lines.called,
        numbers=lines.item_ids.numbers,
    )


def _id(value: object, form: InteractionForm) -> str | None:
    return id_text(value) if isinstance(value, str) or not form.only_text_ids else None


def _good(lines: _Lines, seconds: NDArray[np.float64], source: Source, form: InteractionForm) -> list[int]:
    """Places of the lines with a time that do not repeat an earlier one."""
    seen = set()
    kept = []
    for place, key in enumerate(zip(lines.users, lines.items, seconds.tolist(), strict=True)):
        if np.isnan(key[2]):
            source.fault(form.no_time, lines.numbers[place])
        elif key in seen:
            source.fault(f"the {form.of} repeats user, item and time of an earlier one", lines.numbers[place])
        else:
            seen.add(key)
            kept.append(place)
    return kept


@dataclass(frozen=True, eq=False)
class Histories:
    """The interactions of the k-core as users with their items in order; `item_ids` by first appearance."""

    users: Users
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    sequences: Sequences
    reviews: tuple[Review, ...]  # those with a rating or a headline


def histories_of(found: Interactions, core: int, of_many: str) -> Histories:
    """Filter the k-core, sort each user's interactions by time, ties in the file's order, and number users and items.

    Raises DatasetError if nothing remains.
    """
    kept = np.flatnonzero(k_core(found.users, found.items, core))
    if not len(kept):
        raise DatasetError(
            f"the {core}-core is empty: no {of_many} remain where each user and item has {core}; choose a smaller "
            "--core"
        )
    _, first = np.unique(found.users, return_index=True)
    order = kept[np.lexsort((found.seconds[kept], first[_ranks(found.users)[kept]]))]
    user_numbers, users = _by_appearance(found.users[order])
    item_numbers, items = _by_appearance(found.items[order])
    sequences = Sequences(
        items=items,
        offsets=np.searchsorted(users, np.arange(len(user_numbers) + 1)).astype(np.int64),
        timestamps=np.floor(found.seconds[order]).astype(np.int64),
    )
    user_ids = [found.user_ids[user] for user in user_numbers]
    return Histories(
        users=Users.from_rows(
            {"user_id": user_id, "index": str(number), "name": found.names.get(user)}
            for number, (user_id, user) in enumerate(zip(user_ids, user_numbers, strict=True), start=1)
        ),
        user_ids=user_ids,
        item_ids=[found.item_ids[item] for item in item_numbers],
        sequences=sequences,
        reviews=tuple(_reviews(found, order, users, sequences)),
    )


def k_core(users: NDArray[np.int64], items: NDArray[np.int64], core: int) -> NDArray[np.bool_]:
    """Which interactions remain, [L], after repeatedly removing users and items with fewer than `core` of them."""
    is_kept = np.ones(len(users), dtype=np.bool_)
    while True:
        has_enough = [np.bincount(rows[is_kept], minlength=rows.max(initial=0) + 1) >= core for rows in (users, items)]
        still_kept = is_kept & has_enough[0][users] & has_enough[1][items]
        if (still_kept == is_kept).all():
            return is_kept
        is_kept = still_kept


def _ranks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the values among their sorted distinct ones."""
    ranks: NDArray[np.int64] = np.unique(values, return_inverse=True)[1]
    return ranks


def _by_appearance(values: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int64]]:
    """The distinct values in the order of first appearance, and the place there of each value."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    numbers: list[int] = distinct[order].tolist()
    return numbers, places[inverse]


def _reviews(
    found: Interactions, order: NDArray[np.int64], users: NDArray[np.int64], sequences: Sequences
) -> list[Review]:
    """A review for each interaction with a rating or headline, in the order of the sequences."""
    splits: list[Split] = ["train"] * len(order)
    for start, end in pairwise(sequences.offsets.tolist()):
        splits[max(start, end - 2) : end] = _HELD_OUT[start - end :]
    return [
        Review(
            user=int(users[place]),
            item=int(sequences.items[place]),
            split=splits[place],
            star_rating=None if np.isnan(found.ratings[line]) else float(found.ratings[line]),
            headline=found.headlines[line],
            feature=None,
            explanation=None,
        )
        for place, line in enumerate(order.tolist())
    ]
