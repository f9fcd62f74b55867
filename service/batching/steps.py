"""Fair shares of the steps of texts that run side by side, and of the rows that they take.

A step with many texts takes long for each of them. While several clients have texts, each gets credit for every step by
its weight, and its texts take their turns (deficit round robin: Shreedhar and Varghese, 1996). The credit is such that
the client with the least work has all of it in every step. It is doubled while that makes the step hardly longer, as on
a GPU. The session steps one search with several beams at a time; which one is next is decided by fair queueing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from service.batching.forecast import MovingAverage
from service.batching.shares import Client, Shares

ROWS_PER_FREE = 8
"""A client may have this many rows for each free one: some stay free for others (Choudhury and Hahne, 1998)."""

ROUNDING = 1e-6
STEP_GROWTH = 1.6
"""Longest duration of a step relative to the least that is fair."""


def may_take_row(client: Client, num_own: int, num_free: int) -> bool:
    """Whether a client that has `num_own` rows may take one of the free ones. Without API keys, there are no others."""
    return not client.name or num_own < ROWS_PER_FREE * num_free


@dataclass(eq=False)
class RunningShare:
    """The part of a running text that is shared: `cost` is its number of beams, `size` that of its job."""

    row: int
    client: Client
    cost: int
    size: int
    place: float = 0.0
    last_step: int = field(default=-1)


class StepShares:
    """Chooses the rows of each step. Used on the lane's thread."""

    def __init__(self) -> None:
        self._texts: dict[int, RunningShare] = {}
        self._searches = Shares()
        self._current: int | None = None  # the search with several beams that is under way
        self._credits: defaultdict[str, float] = defaultdict(float)
        self._durations: defaultdict[int, MovingAverage] = defaultdict(MovingAverage)
        self._num_steps = 0

    def num_rows(self, client: Client) -> int:
        return sum(each.client.name == client.name for each in self._texts.values())

    def begin(self, text: RunningShare) -> None:
        if text.cost > 1:
            text.place = self._searches.take(text.client, text.size)
        self._texts[text.row] = text

    def end(self, row: int) -> None:
        del self._texts[row]
        if self._current == row:
            self._current = None

    def record(self, rows: Iterable[int], duration_s: float) -> None:
        """A step of these rows took this long."""
        self._durations[self._size_class(sum(self._texts[row].cost for row in rows))].add(duration_s)

    def choose(self) -> list[int]:
        """The rows of the next step."""
        by_client = self._eligible()
        self._num_steps += 1
        if len(by_client) > 1:
            level = self._level(by_client)
            chosen = [text for texts in by_client.values() for text in self._within_credit(texts, level)]
        else:
            self._credits.clear()
            chosen = [text for texts in by_client.values() for text in texts]
        for text in chosen:
            text.last_step = self._num_steps
        return sorted(text.row for text in chosen)

    def _eligible(self) -> dict[str, list[RunningShare]]:
        """Texts that can take a step, by client."""
        by_client: defaultdict[str, list[RunningShare]] = defaultdict(list)
        search = self._search()
        for text in self._texts.values():
            if text.cost == 1 or text is search:
                by_client[text.client.name].append(text)
        return by_client

    def _search(self) -> RunningShare | None:
        """The search that is under way, or else the one that begins."""
        if self._current is None:
            waiting = [text for text in self._texts.values() if text.cost > 1]
            if not waiting:
                self._searches.rest()
                return None
            first = min(waiting, key=lambda text: text.place)
            self._searches.start(first.client, first.size, first.place)
            self._current = first.row
        return self._texts[self._current]

    def _level(self, by_client: dict[str, list[RunningShare]]) -> float:
        """Credit of a step for a client of weight 1."""
        demands = [(sum(text.cost for text in texts), texts[0].client.weight) for texts in by_client.values()]
        level = min(cost / weight for cost, weight in demands)

        def num_rows(level: float) -> float:
            return sum(min(cost, level * weight) for cost, weight in demands)

        shortest = self._durations.get(self._size_class(num_rows(level)))
        while shortest is not None and num_rows(level) < sum(cost for cost, _ in demands):
            longer = self._durations.get(self._size_class(num_rows(2 * level)))
            if longer is not None and longer.mean > STEP_GROWTH * shortest.mean:
                break
            level *= 2
            if longer is None:  # to be measured by this step
                break
        return level

    def _within_credit(self, texts: list[RunningShare], level: float) -> list[RunningShare]:
        """The client's texts in turn, as far as its credit goes."""
        client = texts[0].client
        total = sum(text.cost for text in texts)
        credit = min(self._credits[client.name] + level * client.weight, float(total))
        chosen = []
        for text in sorted(texts, key=lambda text: (text.last_step, text.row)):
            if text.cost > credit + ROUNDING:
                break
            credit -= text.cost
            chosen.append(text)
        self._credits[client.name] = credit
        return chosen

    def _size_class(self, num_rows: float) -> int:
        return round(2 * math.log2(max(1.0, num_rows)))
