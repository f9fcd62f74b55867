"""Events of users, and the rule by which one becomes part of a history. Both stores follow it.

A history is in the order of its events' timestamps; among equal ones, in the order of arrival.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Outcome: TypeAlias = Literal["stored", "duplicate", "too_old"]
"""What became of an event. Too old: past its lifetime, or older than all events of a history that is full."""


class UserKey(NamedTuple):
    """A user of one domain."""

    domain: str
    user_id: str


class Event(NamedTuple):
    """One event of a user. Times are milliseconds since 1970; `kind` and `event_id` may be empty."""

    item_id: str
    at_ms: int
    kind: str = ""
    event_id: str = ""


class Shown(NamedTuple):
    """An item that was shown to a user, and when it was last: milliseconds since 1970."""

    item_id: str
    at_ms: int


@dataclass(frozen=True)
class Retention:
    """What is kept: the newest events of a user, for a time; and the newest items shown."""

    max_events: int
    lifetime_ms: int
    max_shown: int = 200

    def cutoff_ms(self, now_ms: int) -> int:
        """Events at this time or before are not kept any more."""
        return now_ms - self.lifetime_ms


def added(history: list[Event], event: Event, now_ms: int, retention: Retention) -> tuple[list[Event], Outcome]:
    """The history with a new event in its place, and what became of the event. The given list is not changed.

    An event is a duplicate if the history has one of its `event_id`, or, for an event without one, if the history has
    one of the same item and time.
    """
    cutoff_ms = retention.cutoff_ms(now_ms)
    kept = [each for each in history if each.at_ms > cutoff_ms]
    if event.at_ms <= cutoff_ms:
        return kept, "too_old"
    if any(_is_same(event, each) for each in kept):
        return kept, "duplicate"
    place = bisect_right(kept, event.at_ms, key=lambda each: each.at_ms)
    kept.insert(place, event)
    if len(kept) <= retention.max_events:
        return kept, "stored"
    return kept[1:], "too_old" if place == 0 else "stored"


def shown_after(shown: list[Shown], item_ids: list[str], now_ms: int, retention: Retention) -> list[Shown]:
    """The items shown to a user after these were shown, too: each with its last time, oldest first, ties by id."""
    last = {each.item_id: each.at_ms for each in shown if each.at_ms > retention.cutoff_ms(now_ms)}
    last |= dict.fromkeys(item_ids, now_ms)
    in_order = sorted((Shown(item_id, at_ms) for item_id, at_ms in last.items()), key=lambda each: (each[1], each[0]))
    return in_order[-retention.max_shown :]


def _is_same(event: Event, other: Event) -> bool:
    if event.event_id:
        return event.event_id == other.event_id
    return (event.item_id, event.at_ms) == (other.item_id, other.at_ms)
