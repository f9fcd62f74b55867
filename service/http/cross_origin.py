"""Cross-origin requests (CORS): which other sites' pages may read the public routes' answers in a browser.

/admin and /metrics never take part. Pages present keys in headers of their own, so cookies are not allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import CrossOriginError
from service.http.problems import problem_response
from service.origins import ANY
from service.problem_documents import problem_of

MAX_SHOWN = 100
INTERNAL = ("/admin", "/metrics", "/status")
"""What VIP5_ADMIN_PORT moves to a port of its own."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
REQUEST_HEADERS = ("Authorization", "X-API-Key", "X-Request-ID", "traceparent")
"""The headers that public routes read, besides those that browsers always allow."""
ANSWER_HEADERS = ("X-Request-ID", "Retry-After", "WWW-Authenticate", "Allow")
"""The headers that public routes send, besides those that browsers always show."""


class CrossOrigin:
    """The origins that the settings allow; `*` allows every one, and none turns CORS off."""

    def __init__(self, origins: Sequence[str] = ()) -> None:
        self._origins = tuple(origins)

    def install(self, app: FastAPI) -> None:
        """Add the middleware, unless no origin is allowed."""
        if self._origins:
            app.add_middleware(_CrossOriginMiddleware, origins=self._origins)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """An app outside of the middleware with CORS, or the app itself if no origin is allowed."""
        return _CrossOriginMiddleware(app, self._origins) if self._origins else app

    def headers(self, path: str, origin: str | None) -> dict[str, str]:
        """The headers of an answer that the app does not see."""
        if not self._origins or _is_internal(path):
            return {}
        headers = {"Vary": "Origin"}
        if origin is not None and (ANY in self._origins or origin in self._origins):
            headers["Access-Control-Allow-Origin"] = ANY if ANY in self._origins else origin
            headers["Access-Control-Expose-Headers"] = ", ".join(ANSWER_HEADERS)
        return headers


class _CrossOriginMiddleware(CORSMiddleware):
    """Starlette's, with the methods of the route that is asked for, and with refusals as problem documents."""

    def __init__(self, app: ASGIApp, origins: Sequence[str], methods: Sequence[str] = METHODS) -> None:
        self._origins = origins
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=REQUEST_HEADERS,
            expose_headers=ANSWER_HEADERS,
            # Browsers ask before a public page reaches into a private network. With `*`, that could be any page.
            allow_private_network=ANY not in origins,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_internal(_path_of(scope)):
            await self.app(scope, receive, send)
        elif _is_preflight(scope):
            await self._answer_preflight(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _answer_preflight(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked, methods = Headers(scope=scope), _methods_of(scope)
        answer = _CrossOriginMiddleware(self.app, self._origins, methods).preflight_response(asked)
        if answer.status_code != 200:
            trace = scope["state"]["trace"]
            error = CrossOriginError(_refusal(asked, bytes(answer.body).decode(), methods))
            trace.error_code = error.code
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
            answer = problem_response(problem_of(error, trace.request_id), kept)
        await answer(scope, receive, send)


def _path_of(scope: Scope) -> str:
    """The path below the root path, as routes have it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/"))


def _is_internal(path: str) -> bool:
    return any(path == each or path.startswith(each + "/") for each in INTERNAL)


def _is_preflight(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return scope["method"] == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _methods_of(scope: Scope) -> tuple[str, ...]:
    """The methods of the path; all for an unknown one, so that the page is shown the 404."""
    routes = scope["app"].routes
    found = {
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    }
    if "GET" in found:
        found.add("HEAD")
    return tuple(method for method in METHODS if method in found) or METHODS


def _refusal(asked: Headers, reasons: str, methods: Sequence[str]) -> str:
    origin, method = asked["origin"][:MAX_SHOWN], asked["access-control-request-method"][:MAX_SHOWN]
    headers = asked.get("access-control-request-headers", "")[:MAX_SHOWN]
    return (
        f"{reasons}: a page of {origin!r} asks for {method!r} with the headers {headers!r}; allowed are the origins "
        f"in VIP5_CORS_ORIGINS, the methods {', '.join(methods)} and the headers Content-Type, "
        f"{', '.join(REQUEST_HEADERS)}"
    )
