"""Route classes: checks of API keys and rates, then reading of bodies, before FastAPI handles a request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from service.errors import ForbiddenError, UnauthorizedError
from service.http.api_keys import RouteScope
from service.http.app_state import state_of
from service.http.auditing import audit_refusal
from service.http.callers import note_key, require_route
from service.http.early_refusals import LaneName, refuse_read, refuse_unread
from service.http.json_body import with_json_body
from service.http.problems import trace_of
from service.http.rate_limits import check_rate

API_KEY = "X-API-Key"

SECURITY: list[Dependency] = [
    Depends(HTTPBearer(auto_error=False, description="An API key.", scheme_name="APIKey")),
    Depends(APIKeyHeader(name=API_KEY, auto_error=False, description="An API key.")),
]
"""For the OpenAPI document only: the route class has already checked the key."""


class JsonRoute(APIRoute):
    """A route with a JSON body of limited size."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            with state_of(request.app).body_budget.held() as held:
                read = await with_json_body(request, held)
                await self.check_read(read)
                return await handler(read)

        return read_and_handle

    async def check_read(self, request: Request) -> None:
        """Raises what refuses a request whose body was read and not yet parsed."""


class LaneRoute(JsonRoute):
    """A route whose requests wait in a lane, which may just have refused one of the same client."""

    lane: ClassVar[LaneName]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        lane = self.lane
        read_and_handle = super().get_route_handler()

        async def refuse_or_handle(request: Request) -> Response:
            refuse_unread(request, lane)
            return await read_and_handle(request)

        return refuse_or_handle

    async def check_read(self, request: Request) -> None:
        await refuse_read(request, self.lane)


class RateLimitedRoute(APIRoute):
    """A route with a rate limit per client, which is checked before a body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def check_and_handle(request: Request) -> Response:
            await check_rate(request)
            return await handler(request)

        return check_and_handle


class ApiKeyRoute(APIRoute):
    """A route that requires an API key with the route's scope, if API keys are configured."""

    scope: ClassVar[RouteScope]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        scope = self.scope

        async def check_and_handle(request: Request) -> Response:
            keys = state_of(request.app).api_keys
            if keys is not None:
                headers = request.headers
                try:
                    key = keys.check(headers.get("Authorization"), headers.get(API_KEY))
                except UnauthorizedError as error:
                    audit_refusal(request, None, error)
                    raise
                note_key(request, key)
            try:
                require_route(request, scope)
                return await handler(request)
            except ForbiddenError as error:
                audit_refusal(request, trace_of(request).client, error)
                raise

        return check_and_handle


class RecommendRoute(ApiKeyRoute, RateLimitedRoute, LaneRoute):
    """A request for recommendations."""

    scope = "recommend"
    lane = "ranking"


class ExplainRoute(ApiKeyRoute, RateLimitedRoute, LaneRoute):
    """A request for an explanation."""

    scope = "explain"
    lane = "text"


class BrowseRoute(ApiKeyRoute):
    """What is served."""

    scope = "browse"


class ItemsRoute(ApiKeyRoute, RateLimitedRoute):
    """A search of items."""

    scope = "browse"


class EventsRoute(ApiKeyRoute, RateLimitedRoute, JsonRoute):
    """Adds to users' histories."""

    scope = "events"


class UsersRoute(ApiKeyRoute, RateLimitedRoute):
    """Names and histories of users."""

    scope = "users"
