"""The rule by which an event joins a history, and the popularity that events add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.histories.events import Event, Outcome, Retention, Shown, added, shown_after
from service.histories.popularity import MAX_ITEMS, Popularity, combined, count_at, merged, weight_of

NOW_MS = 1_700_000_000_000
RETENTION = Retention(max_events=3, lifetime_ms=10_000, max_shown=2)


def history_of(*events: Event) -> tuple[list[Event], list[Outcome]]:
    history: list[Event] = []
    outcomes: list[Outcome] = []
    for event in events:
        history, outcome = added(history, event, NOW_MS, RETENTION)
        outcomes.append(outcome)
    return history, outcomes


def event(item_id: str, ago_ms: int, event_id: str = "") -> Event:
    return Event(item_id, NOW_MS - ago_ms, "", event_id)


def test_a_late_event_takes_its_place_by_time_and_equal_times_keep_their_order() -> None:
    events = [event("c", 1), event("a", 3), event("b", 3)]
    assert history_of(*events) == ([events[1], events[2], events[0]], ["stored"] * 3)


def test_an_event_sent_again_adds_nothing() -> None:
    by_id, by_time = event("a", 2, "1"), event("b", 1)
    _, outcomes = history_of(by_id, event("other", 1, "1"), event("a", 2, "2"), by_time, by_time, event("c", 1))
    assert outcomes == ["stored", "duplicate", "stored", "stored", "duplicate", "stored"]


def test_only_the_newest_events_are_kept_and_for_their_lifetime() -> None:
    newest = [event("b", 3), event("c", 2), event("d", 1)]
    kept, outcomes = history_of(event("a", 4), *newest, event("e", 5), event("f", 10_000))
    assert kept == newest
    assert outcomes == ["stored"] * 4 + ["too_old"] * 2
    kept, _ = added(kept, event("g", 0), NOW_MS + 9_998, RETENTION)
    assert [each.item_id for each in kept] == ["d", "g"]


def test_items_shown_are_kept_with_their_last_time() -> None:
    shown = shown_after([], ["a", "b"], 1, Retention(5, 100, max_shown=2))
    shown = shown_after(shown, ["a"], 2, Retention(5, 100, max_shown=2))
    assert shown == [Shown("b", 1), Shown("a", 2)]
    assert shown_after(shown, ["c"], 3, Retention(5, 100, max_shown=2)) == [Shown("a", 2), Shown("c", 3)]
    assert shown_after(shown, ["c"], 102, Retention(5, 100, max_shown=2)) == [Shown("c", 102)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10_000_000)), min_size=1, max_size=30))
def test_popularity_is_the_sum_of_decayed_events_in_any_order_and_division(events: list[tuple[str, int]]) -> None:
    half_life_ms = 1_000_000
    whole, parts = Popularity(half_life_ms), [Popularity(half_life_ms), Popularity(half_life_ms)]
    for place, (item_id, ago_ms) in enumerate(events):
        whole.add(item_id, NOW_MS - ago_ms)
        parts[place % 2].add(item_id, NOW_MS - ago_ms)
    together = merged(each.weights for each in parts)
    for item_id in {item_id for item_id, _ in events}:
        expected = sum(2.0 ** (-ago_ms / half_life_ms) for other, ago_ms in events if other == item_id)
        for weights in (whole.weights, together):
            assert count_at(weights[item_id], NOW_MS, half_life_ms) == pytest.approx(expected, rel=1e-6)


def test_popularity_neither_overflows_nor_grows_without_limit() -> None:
    assert combined(1e9, 0.0) == 1e9
    assert count_at(weight_of(NOW_MS, 1_000), 0, 1_000) == 2.0**1000
    popularity = Popularity(1_000)
    for number in range(2 * MAX_ITEMS + 1):
        popularity.add(f"item-{number}", NOW_MS + number)
    assert len(popularity.weights) == MAX_ITEMS
    assert f"item-{2 * MAX_ITEMS}" in popularity.weights
