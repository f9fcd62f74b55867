"""Takes events of users into the store of histories."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from model.errors import InputError
from model.planning.domain import ServedDomain
from service.errors import HistoriesUnavailableError
from service.histories.events import Event, UserKey
from service.histories.store import HistoryStore
from service.observability.metrics import Metrics
from service.schemas.events import EventBody, EventsAnswer
from service.versions.domains import Domains

MOST_AHEAD_S = 300.0
"""Clocks may differ by so much."""


async def take_events(
    bodies: Sequence[EventBody],
    domains: Domains,
    store: HistoryStore,
    metrics: Metrics,
    clock: Callable[[], float] = time.time,
) -> EventsAnswer:
    """Keep all events or none. Raises UnknownDomainError, InputError and HistoriesUnavailableError."""
    served = {name: domains.domain(name) for name in dict.fromkeys(body.domain for body in bodies)}
    now_s = clock()
    events = [
        (UserKey(body.domain, body.user_id), _event(body, now_s, f"{number}." if len(bodies) > 1 else ""))
        for number, body in enumerate(bodies)
    ]
    try:
        with metrics.timed_history("add"):
            outcomes = Counter(await store.add(events))
    except HistoriesUnavailableError:
        metrics.count_events("refused", len(events))
        raise
    for outcome, number in outcomes.items():
        metrics.count_events(outcome, number)
    unknown = dict.fromkeys(body.item_id for body in bodies if served[body.domain].catalog.row_of(body.item_id) is None)
    return EventsAnswer(
        stored=outcomes["stored"],
        duplicates=outcomes["duplicate"],
        too_old=outcomes["too_old"],
        unknown_items=list(unknown),
    )


def unknown_items(domain: ServedDomain, events: Iterable[Event]) -> list[str]:
    """Items of events that are not in the catalog, each once."""
    items = dict.fromkeys(event.item_id for event in events)
    return [item_id for item_id in items if domain.catalog.row_of(item_id) is None]


def _event(body: EventBody, now_s: float, place: str) -> Event:
    """`place` precedes the names of the body's fields. Raises InputError."""
    at_s = now_s if body.timestamp is None else body.timestamp
    if at_s > now_s + MOST_AHEAD_S:
        raise InputError(
            f"{place}timestamp: {at_s:.3f} is {at_s - now_s:.0f} s after the service's clock, and at most "
            f"{MOST_AHEAD_S:.0f} s are allowed; send seconds since 1970 (UTC), and no event was kept",
            field=f"{place}timestamp",
        )
    return Event(body.item_id, round(at_s * 1000), body.type or "", body.event_id or "")
