"""Groups of leaves by the values of a catalog column, and limits on how many of a group a list may have."""

# N leaves

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LeafGroups:
    """The groups of each leaf: none, one, or several for a column of lists."""

    starts: NDArray[np.int64] | None  # [N + 1], start of each leaf's groups; None if each leaf has one entry
    groups: NDArray[np.int32]  # group numbers; -1 for none

    def of_leaf(self, leaf: int) -> set[int]:
        if self.starts is None:
            found = (int(self.groups[leaf]),)
        else:
            found = tuple(self.groups[self.starts[leaf] : self.starts[leaf + 1]].tolist())
        return {group for group in found if group >= 0}

    def has(self, group: int) -> NDArray[np.bool_]:
        """Which leaves are of a group: [N]."""
        is_of: NDArray[np.bool_] = self.groups == group
        if self.starts is None:
            return is_of
        is_of_leaf: NDArray[np.bool_] = np.zeros(len(self.starts) - 1, dtype=np.bool_)
        is_of_leaf[np.searchsorted(self.starts, np.flatnonzero(is_of), side="right") - 1] = True
        return is_of_leaf


@dataclass(frozen=True, eq=False)
class Limit:
    """At most so many items of each group. Leaves without a group are not limited."""

    column: str
    groups: Callable[[], LeafGroups] = field(repr=False)
    """Found when they are first needed."""
    most: int


def within_limits(leaves: Iterable[int], limits: Sequence[Limit], k: int) -> list[int]:
    """Places of the first k leaves that keep all limits, taken in order: a leaf that would exceed one is skipped."""
    taken: list[int] = []
    counts: list[dict[int, int]] = [{} for _ in limits]
    columns = [limit.groups() for limit in limits]
    for place, leaf in enumerate(leaves):
        if len(taken) == k:
            break
        groups = [column.of_leaf(leaf) for column in columns]
        is_full = any(
            count.get(group, 0) >= limit.most
            for limit, count, own in zip(limits, counts, groups, strict=True)
            for group in own
        )
        if not is_full:
            taken.append(place)
            for count, own in zip(counts, groups, strict=True):
                for group in own:
                    count[group] = count.get(group, 0) + 1
    return taken


def first_within_limits(leaves: NDArray[np.int32], limits: Sequence[Limit], k: int) -> NDArray[np.int64]:
    """The places that `within_limits` finds, for very many leaves [R]: looks at each group once, not at each leaf."""
    places = np.arange(len(leaves))
    if not limits:
        return places[:k]
    taken: list[int] = []
    columns = [(limit, limit.groups(), Counter[int]()) for limit in limits]
    while len(taken) < k and len(places):
        place, places = places[0], places[1:]
        taken.append(int(place))
        for limit, column, counts in columns:
            for group in column.of_leaf(int(leaves[place])):
                counts[group] += 1
                if counts[group] == limit.most:
                    places = places[~column.has(group)[leaves[places]]]
    return np.array(taken, dtype=np.int64)
