"""POST /events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from service.answering.events import take_events
from service.http.app_state import state_of
from service.http.callers import require_domain
from service.http.dependencies import Trace, histories_of, ready_service_of
from service.http.openapi import problems
from service.http.route_classes import EventsRoute
from service.schemas import examples
from service.schemas.events import EventBody, EventsAnswer, EventsBody

router = APIRouter(
    tags=["histories"],
    route_class=EventsRoute,
    responses=problems(400, 404, 408, 409, 413, 415, 422, 429, 500, 503),
)


@router.post("/events")
async def post_events(
    body: Annotated[EventsBody, Body(examples=examples.EVENTS)], request: Request, trace: Trace
) -> EventsAnswer:
    """Add one event, or a list of up to 1,000, to users' histories: all or none.

    An event is in the history that the next request reads. An event that was sent before adds nothing.
    """
    bodies = [body] if isinstance(body, EventBody) else body
    for domain in dict.fromkeys(each.domain for each in bodies):
        require_domain(request, domain)
    service = ready_service_of(request)
    answer = await take_events(bodies, service.domains, histories_of(service).store, state_of(request.app).metrics)
    trace.domain = bodies[0].domain
    return answer
