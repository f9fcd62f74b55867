"""All histories of one process, in its memory, and as records of its file. Blocks, and knows no event loop."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from service.histories.events import Event, Outcome, Retention, Shown, UserKey, added, shown_after
from service.histories.file import EventRecord, PopularRecord, Record, ShownRecord
from service.histories.popularity import Popularity, count_at


@dataclass(frozen=True)
class Kept:
    """What is kept of a user."""

    events: list[Event] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)


NOTHING = Kept()


class HistoryMemory:
    """Mutable. The most users are kept who were written last."""

    def __init__(self, retention: Retention, max_users: int, half_life_ms: int) -> None:
        self.retention = retention
        self._max_users = max_users
        self._half_life_ms = half_life_ms
        self._users: dict[UserKey, Kept] = {}
        self._popularity: dict[str, Popularity] = {}

    def __contains__(self, user: UserKey) -> bool:
        return user in self._users

    def __len__(self) -> int:
        return len(self._users)

    def kept(self, user: UserKey) -> Kept:
        return self._users.get(user, NOTHING)

    def put(self, user: UserKey, kept: Kept) -> None:
        """Keep a user as the one who was written last; whoever was not for longest may have to go."""
        self._users.pop(user, None)
        if kept.events or kept.shown:
            self._users[user] = kept
        while len(self._users) > self._max_users:
            del self._users[next(iter(self._users))]

    def forget(self, user: UserKey) -> Kept:
        """Remove a user; what was kept."""
        return self._users.pop(user, NOTHING)

    def count(self, domain: str, item_id: str, at_ms: int) -> None:
        """Count an event for the popularity of its item."""
        self._popularity_of(domain).add(item_id, at_ms)

    def popular(self, domain: str, now_ms: int) -> Mapping[str, float]:
        """The decayed numbers of events."""
        weights = self._popularity[domain].weights if domain in self._popularity else {}
        return {item_id: count_at(weight, now_ms, self._half_life_ms) for item_id, weight in weights.items()}

    def replay(self, record: Record, now_ms: int) -> None:
        """Take over a record of the file."""
        match record:
            case EventRecord():
                user = UserKey(record.domain, record.user_id)
                events, _ = added(self.kept(user).events, record.event, now_ms, self.retention)
                self.put(user, Kept(events, self.kept(user).shown))
                if record.counted:
                    self.count(record.domain, record.item_id, record.at_ms)
            case ShownRecord():
                user = UserKey(record.domain, record.user_id)
                shown = shown_after(self.kept(user).shown, record.item_ids, record.at_ms, self.retention)
                self.put(user, Kept(self.kept(user).events, shown))
            case PopularRecord():
                self._popularity_of(record.domain).weights[record.item_id] = record.weight

    def records(self, erased: Collection[UserKey], now_ms: int) -> Iterator[Record]:
        """All that is kept, without what is past its lifetime and without the erased users."""
        for domain, popularity in self._popularity.items():
            for item_id, weight in popularity.weights.items():
                yield PopularRecord(domain, item_id, weight)
        cutoff_ms = self.retention.cutoff_ms(now_ms)
        for user, kept in self._users.items():
            if user in erased:
                continue
            for event in kept.events:
                if event.at_ms > cutoff_ms:
                    yield EventRecord.of(user, event, counted=False)
            for at_ms, shown in groupby(kept.shown, lambda each: each.at_ms):
                if at_ms > cutoff_ms:
                    yield ShownRecord(*user, at_ms, [each.item_id for each in shown])

    def _popularity_of(self, domain: str) -> Popularity:
        return self._popularity.setdefault(domain, Popularity(self._half_life_ms))


class Batch:
    """Changes of a memory that become visible together. `records` are what the file needs of them."""

    def __init__(self, memory: HistoryMemory, now_ms: int) -> None:
        self.records: list[Record] = []
        self._memory = memory
        self._now_ms = now_ms
        self._users: dict[UserKey, Kept] = {}
        self._counted: list[tuple[str, Event]] = []

    def add(self, user: UserKey, event: Event) -> Outcome:
        kept = self._kept(user)
        events, outcome = added(kept.events, event, self._now_ms, self._memory.retention)
        if outcome == "stored":
            self._users[user] = Kept(events, kept.shown)
            self._counted.append((user.domain, event))
            self.records.append(EventRecord.of(user, event, counted=True))
        return outcome

    def show(self, user: UserKey, item_ids: Sequence[str]) -> None:
        kept = self._kept(user)
        shown = shown_after(kept.shown, list(item_ids), self._now_ms, self._memory.retention)
        self._users[user] = Kept(kept.events, shown)
        self.records.append(ShownRecord(*user, self._now_ms, list(item_ids)))

    def commit(self) -> None:
        for user, kept in self._users.items():
            self._memory.put(user, kept)
        for domain, event in self._counted:
            self._memory.count(domain, event.item_id, event.at_ms)

    def _kept(self, user: UserKey) -> Kept:
        return self._users.get(user) or self._memory.kept(user)
