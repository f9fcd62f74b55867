"""Gives a request without a history the stored one of its user, or the most popular items in place of an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from model.degradation import Degradation, DegradationKind
from model.errors import InputError
from model.planning.domain import ServedDomain
from model.planning.popular import PopularItems, is_quick, rank_popular
from model.planning.rotation import Rotation, Shown
from service.errors import HistoriesUnavailableError, NoHistoryError
from service.histories.events import UserKey
from service.histories.opening import Histories
from service.histories.store import HistoryStore
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.ranking import DirectRequest, RankingRequest, SequentialRequest

POPULAR_INSTEAD = "the most popular items are returned"

Request = TypeVar("Request", bound=RankingRequest)


class StoredHistories:
    """Reads from the store of histories, if there is one."""

    def __init__(
        self,
        histories: Histories | None,
        metrics: Metrics,
        max_history: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Times of `now` are seconds since 1970."""
        self._store = None if histories is None else histories.store
        self._shown = None if histories is None else histories.shown
        self._now = now
        self._metrics = metrics
        self._max_history = max_history

    async def completed(
        self, domain: ServedDomain, request: SequentialRequest | DirectRequest, trace: RequestTrace
    ) -> SequentialRequest | DirectRequest | PopularItems:
        """The request with a history, or a ranking by popularity.

        Raises InputError kinds, NoHistoryError and HistoriesUnavailableError.
        """
        if isinstance(request, DirectRequest) or request.history:
            return request
        store, user = self._required(domain, request)
        with trace.stage("history"):
            try:
                with self._metrics.timed_history("read"):
                    events = await store.read(user, self._max_history)
            except HistoriesUnavailableError:
                self._metrics.count_lookup("unavailable")
                if request.fallback == "none":
                    raise
                detail = f"the stored history cannot be read now; {POPULAR_INSTEAD}"
                return await self._popular(domain, request, Degradation(DegradationKind.HISTORY_UNAVAILABLE, detail))
            if any(domain.catalog.row_of(event.item_id) is not None for event in events):
                self._metrics.count_lookup("found")
                return request.model_copy(update={"history": [event.item_id for event in events]})
            self._metrics.count_lookup("missing")
            has = f"{len(events)} events, none of an item in the catalog" if events else "no history"
            if request.fallback == "none":
                raise NoHistoryError(
                    f"the user has {has}, and fallback is 'none'; send history, post events of the user to /events, or "
                    "set fallback to 'popular'"
                )
            detail = f"the user has {has}; {POPULAR_INSTEAD}"
            return await self._popular(domain, request, Degradation(DegradationKind.HISTORY_MISSING, detail))

    def _required(self, domain: ServedDomain, request: SequentialRequest) -> tuple[HistoryStore, UserKey]:
        """Raises InputError."""
        if self._store is None:
            raise InputError(
                "history is missing, and this service keeps no histories (VIP5_HISTORY_STORE is none); send history",
                field="history",
            )
        assert request.user_id is not None, "the schema requires a history or a user"
        return self._store, UserKey(domain.name, request.user_id)

    async def rotated(self, domain: ServedDomain, request: Request, trace: RequestTrace) -> Request:
        """The request with what its user was shown lately, if it is to be lowered. Raises InputError."""
        if request.rotate is None:
            return request
        store, user = self._shop_of(domain, request)
        try:
            with trace.stage("history"), self._metrics.timed_history("shown"):
                shown = await store.shown(user)
        except HistoriesUnavailableError:
            detail = "what the user was shown cannot be read now; nothing is lowered for it"
            trace.noticed = (*trace.noticed, Degradation(DegradationKind.HISTORY_UNAVAILABLE, detail))
            return request
        lately = tuple(Shown(each.item_id, each.at_ms / 1000) for each in shown)
        return request.with_rotation(Rotation(request.rotate.factor, request.rotate.fade_s, self._now(), lately))

    def note_shown(self, domain: ServedDomain, request: Request, item_ids: Sequence[str]) -> None:
        """Remember what the user is shown, for requests that ask for rotation. Does not wait."""
        if request.rotate is not None and request.user_id is not None and self._shown is not None:
            self._shown.note(UserKey(domain.name, request.user_id), item_ids)

    def _shop_of(self, domain: ServedDomain, request: Request) -> tuple[HistoryStore, UserKey]:
        """Raises InputError."""
        if self._store is None:
            raise InputError(
                "rotate needs the store of histories, which this service has not (VIP5_HISTORY_STORE is none); leave "
                "rotate out",
                field="rotate",
            )
        assert request.user_id is not None, "the schema requires a user"
        return self._store, UserKey(domain.name, request.user_id)

    async def _popular(self, domain: ServedDomain, request: SequentialRequest, why: Degradation) -> PopularItems:
        counts = await self._counts(domain.name)
        if is_quick(domain):
            found = rank_popular(domain, request, counts)
        else:
            found = await asyncio.to_thread(rank_popular, domain, request, counts)
        return replace(found, degraded=(why, *found.degraded))

    async def _counts(self, domain: str) -> Mapping[str, float]:
        """Decayed numbers of events; none if the store cannot be reached."""
        assert self._store is not None
        try:
            with self._metrics.timed_history("popular"):
                return await self._store.popular(domain)
        except HistoriesUnavailableError:
            return {}
