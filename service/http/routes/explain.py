"""POST /explain, as one JSON answer or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import get_args

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from model.errors import Vip5Error
from service.answering.explainer import RunningExplanation
from service.http.callers import require_domain
from service.http.dependencies import Trace, ready_service_of
from service.http.openapi import problems
from service.http.responses import while_connected
from service.http.route_classes import ExplainRoute
from service.observability.trace import RequestTrace
from service.problem_documents import code_of, problem_of
from service.schemas.examples import TOKEN_EVENT
from service.schemas.explanation import EventName, ExplanationAnswer, ExplanationRequest, TokenEvent

EVENT_STREAM = "text/event-stream"
EVENT_SCHEMA = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "event": {"enum": list(get_args(EventName))},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
    "examples": [TOKEN_EVENT],
}

router = APIRouter(
    tags=["explain"],
    route_class=ExplainRoute,
    responses=problems(400, 404, 408, 413, 415, 422, 429, 500, 503, 504)
    | {200: {"content": {EVENT_STREAM: {"schema": EVENT_SCHEMA}}}},
)


@router.post("/explain", response_model=ExplanationAnswer)
async def explain(body: ExplanationRequest, request: Request, trace: Trace) -> ExplanationAnswer | StreamingResponse:
    """Explain why a user would like an item. With `stream`: `token` events, then `done` with the answer, or `error`."""
    require_domain(request, body.domain)
    explainer = ready_service_of(request).explainer
    if not body.stream:
        return await while_connected(request.receive, explainer.explain(body, trace))
    return ExplanationStream(await explainer.start(body, trace), trace)


class ExplanationStream(StreamingResponse):
    """Server-sent events; generation stops when the client disconnects."""

    def __init__(self, running: RunningExplanation, trace: RequestTrace) -> None:
        # Keeps proxies from buffering the stream.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_events(running, trace), media_type=EVENT_STREAM, headers=headers)
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._running.cancel()


async def _events(running: RunningExplanation, trace: RequestTrace) -> AsyncIterator[str]:
    try:
        async for event in running.events(trace):
            yield _event("token" if isinstance(event, TokenEvent) else "done", event)
    except Vip5Error as error:
        trace.error_code = code_of(error)
        yield _event("error", problem_of(error, trace.request_id))


def _event(name: EventName, data: BaseModel) -> str:
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"
