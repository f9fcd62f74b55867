"""GET /status: for somebody on call, as a page, as text or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from service.http.app_state import state_of
from service.http.identity import key_of
from service.http.openapi import problems
from service.http.route_classes import BrowseRoute
from service.http.routes.page import page_response
from service.http.status import status_of, status_text
from service.schemas.status import StatusAnswer

FORMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {form: {"schema": {"type": "string"}} for form in ("text/html", "text/plain")}}
}


class StatusRoute(BrowseRoute):
    """A public route needs a key, if there are keys; the administrators' port does not. Nor does the empty page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        checked = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if _wants(request) == "text/html":
                page = page_response("status.html")
                page.headers["Vary"] = "Accept"
                return page
            if state_of(request.app).admin_app is request.app:
                return _answer(request)
            return await checked(request)

        return handle


router = APIRouter(tags=["health"], route_class=StatusRoute, responses=problems(500))


@router.get("/status", response_model=StatusAnswer, responses=FORMS)
async def status(request: Request) -> Response:
    """The state of this process. JSON if `Accept` asks for it, a page for browsers, otherwise text."""
    return _answer(request)


def _answer(request: Request) -> Response:
    key = key_of(request)
    found = status_of(state_of(request.app), lambda name: key is None or key.allows_domain(name))
    answer: Response = PlainTextResponse(status_text(found))
    if _wants(request) == "application/json":
        answer = Response(found.model_dump_json(), media_type="application/json")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Vary"] = "Accept"
    return answer


def _wants(request: Request) -> str:
    """The first form that `Accept` names; text if it names none."""
    accepted = request.headers.get("accept", "")
    places = {form: accepted.find(form) for form in ("text/html", "application/json", "text/plain")}
    named = {form: place for form, place in places.items() if place >= 0}
    return min(named, key=lambda form: named[form], default="text/plain")
