"""GET and DELETE /domains/{name}/users/{user_id}/history."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.answering.events import unknown_items
from service.histories.events import UserKey
from service.http.app_state import state_of
from service.http.callers import require_domain
from service.http.dependencies import DomainPath, Trace, UserPath, histories_of, service_of
from service.http.openapi import problems
from service.http.route_classes import UsersRoute
from service.schemas.events import ErasureAnswer, HistoryAnswer, HistoryEvent

PATH = "/domains/{name}/users/{user_id:path}/history"
ALL = 10_000

router = APIRouter(tags=["histories"], route_class=UsersRoute, responses=problems(404, 409, 422, 429, 500, 503))


@router.get(PATH)
async def show_history(name: DomainPath, user_id: UserPath, request: Request, trace: Trace) -> HistoryAnswer:
    """The stored history of a user."""
    require_domain(request, name)
    service = service_of(request)
    domain = service.domains.domain(name)
    trace.domain = domain.name
    store = histories_of(service).store
    with state_of(request.app).metrics.timed_history("read"):
        events = await store.read(UserKey(domain.name, user_id), ALL)
    return HistoryAnswer(
        domain=domain.name,
        user_id=user_id,
        events=[
            HistoryEvent(
                item_id=each.item_id,
                type=each.kind or None,
                timestamp=each.at_ms / 1000,
                event_id=each.event_id or None,
            )
            for each in events
        ],
        unknown_items=unknown_items(domain, events),
    )


@router.delete(PATH)
async def erase_history(name: DomainPath, user_id: UserPath, request: Request, trace: Trace) -> ErasureAnswer:
    """Erase all that is kept of a user: events, and items shown.

    It is gone from Redis, or from memory and file, when the answer comes. The domain need not be served any more.
    """
    require_domain(request, name)
    service = service_of(request)
    if name in service.domains.stable:
        trace.domain = name
    histories = histories_of(service)
    with state_of(request.app).metrics.timed_history("erase"):
        return ErasureAnswer(erased_events=await histories.erase(UserKey(name, user_id)))
