"""Route classes: checks of API keys, then reading of bodies, before FastAPI handles a request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from service.http.app_state import state_of
from service.http.json_body import with_json_body

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
            return await handler(await with_json_body(request))

        return read_and_handle


class ApiKeyRoute(APIRoute):
    """A route that requires an API key, if API keys are configured."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def check_and_handle(request: Request) -> Response:
            keys = state_of(request.app).api_keys
            if keys is not None:
                headers = request.headers
                request.state.api_key_id = keys.check(headers.get("Authorization"), headers.get(API_KEY))
            return await handler(request)

        return check_and_handle


class ApiKeyJsonRoute(ApiKeyRoute, JsonRoute):
    """A route that requires an API key and has a JSON body."""
