"""API keys as routes ask for them: before anything of a body is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer

from service.api_keys import ApiKeys
from service.routes.parts import JsonRoute

API_KEY = "X-API-Key"

SECURITY: list[Dependency] = [
    Depends(HTTPBearer(auto_error=False, description="An API key.", scheme_name="APIKey")),
    Depends(APIKeyHeader(name=API_KEY, auto_error=False, description="An API key.")),
]
"""Only shown in the OpenAPI document: the routes themselves have checked the key by then."""


class KeyedRoute(APIRoute):
    """A route for those who have an API key, where keys are asked for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def check_and_handle(request: Request) -> Response:
            keys: ApiKeys | None = request.app.state.api_keys
            if keys is not None:
                headers = request.headers
                request.state.api_key_id = keys.check(headers.get("Authorization"), headers.get(API_KEY))
            return await handler(request)

        return check_and_handle


class KeyedJsonRoute(KeyedRoute, JsonRoute):
    """A route for those who have an API key, whose body is JSON."""
