"""What all routes of /admin have in common: the token and its right, the audit log, and what a change waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from model.errors import InputError
from service.errors import ClientDisconnectedError, ForbiddenError, UnauthorizedError
from service.http.admin_tokens import Right
from service.http.app_state import state_of
from service.http.auditing import audit_call, audit_refusal
from service.http.dependencies import DomainPath, Trace, service_of
from service.http.json_body import with_json_body
from service.http.openapi import problems
from service.http.problems import trace_of
from service.versions.administration import Administration

MAX_TIMEOUT_S = 3_600
DOMAIN = "/domains/{name}"
CHANGE_ERRORS = problems(400, 404, 408, 409, 413, 415, 422, 503, 504)
BODILESS_CHANGE_ERRORS = problems(404, 409, 422, 503, 504)


def right_of(path: str, methods: set[str]) -> Right:
    """What a token must be allowed for this path."""
    if methods <= {"GET", "HEAD"}:
        return "read"
    return "catalog" if path.endswith(("/catalog", "/features", "/boosts")) else "roles"


class AdminRoute(APIRoute):
    """A route that checks the admin token and its right before anything else; bodies are JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        right = right_of(self.path, self.methods or set())

        async def check_and_handle(request: Request) -> Response:
            tokens = state_of(request.app).admin_tokens
            assert tokens is not None, "/admin is served only with a token"
            actor: str | None = None
            body = b""
            try:
                token = tokens.check(request.headers.get("authorization", ""))
                actor = trace_of(request).client = token.id
                token.require(right)
                if self.body_field:
                    request = await with_json_body(request)
                    body = await request.body()
                response = await handler(request)
                await _wait(request)
            except (UnauthorizedError, ForbiddenError) as error:
                audit_refusal(request, actor, error)
                raise
            except asyncio.CancelledError:  # the change may have been made
                audit_refusal(request, actor, ClientDisconnectedError("the client closed the connection"))
                raise
            except Exception as error:
                await audit_call(request, actor, body, error)
                raise
            await audit_call(request, actor, body, response.status_code)
            return response

        return check_and_handle


async def _wait(request: Request) -> None:
    """Wait for the other replicas, if that was asked for. Raises ReplicasDifferError."""
    wait: Wait = getattr(request.state, "wait", Wait())
    if wait.who == "all":
        await service_of(request).administration.wait_for_all(request.path_params.get("name"), wait.timeout_s)


@dataclass(frozen=True)
class Wait:
    """Whose answers a change waits for, and for how long at most."""

    who: Literal["self", "all"] = "self"
    timeout_s: float | None = None


def note_wait(
    request: Request,
    wait: Annotated[
        Literal["self", "all"],
        Query(description="`all`: answer when all live replicas serve the change; 504 names those that do not."),
    ] = "self",
    timeout_s: Annotated[
        float | None,
        Query(
            gt=0,
            le=MAX_TIMEOUT_S,
            allow_inf_nan=False,
            description="Longest wait for the others with `wait=all` (default: VIP5_ADMIN_WAIT_S).",
        ),
    ] = None,
) -> None:
    """What a change is to wait for. Raises InputError."""
    if wait == "self" and timeout_s is not None:
        raise InputError("timeout_s limits the wait for other replicas; send it with wait=all", field="timeout_s")
    request.state.wait = Wait(wait, timeout_s)


WAITS = [Depends(note_wait)]
"""The dependency of every route that changes what all replicas serve."""


def admin_router() -> APIRouter:
    return APIRouter(
        prefix="/admin",
        tags=["admin"],
        route_class=AdminRoute,
        dependencies=[Depends(HTTPBearer(auto_error=False, description="The admin token."))],
        responses=problems(401, 403, 500),
    )


def administration_of(request: Request, name: DomainPath, trace: Trace) -> Administration:
    trace.domain = name if name in service_of(request).domains.stable else ""
    return service_of(request).administration


Admin = Annotated[Administration, Depends(administration_of)]
