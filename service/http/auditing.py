"""What goes into the audit log: administrative calls and refused credentials."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fastapi import Request

from service.http.app_state import state_of
from service.http.problems import problem_for, trace_of

MAX_BODY_BYTES = 4_096
"""Longer bodies, such as embeddings, are named by size and digest."""
MAX_PATH_LENGTH = 300
NOT_UNDERSTOOD = (400, 422)
"""Bodies that are not as they should be, in which anything may stand, are named by size and digest too."""


async def audit_call(request: Request, actor: str | None, body: bytes, outcome: int | Exception) -> None:
    """An administrative call, with its outcome: the status of the answer, or the error."""
    audit = state_of(request.app).audit
    if audit is not None:
        entry = _entry(request, actor, outcome)
        shown = _digest(body) if entry["status"] in NOT_UNDERSTOOD else _described(body)
        await audit.write(entry | {"body": shown})


def audit_refusal(request: Request, actor: str | None, error: Exception) -> None:
    """A call that was refused or broken off."""
    audit = state_of(request.app).audit
    if audit is not None:
        audit.note(_entry(request, actor, error))


def _entry(request: Request, actor: str | None, outcome: int | Exception) -> dict[str, Any]:
    problem = None if isinstance(outcome, int) else problem_for(request, outcome)
    path = _path_of(request)
    return {
        "actor": actor,
        "address": request.client.host if request.client else None,
        "method": request.method,
        "path": path if len(path) <= MAX_PATH_LENGTH else f"{path[:MAX_PATH_LENGTH]}…",
        "status": outcome if problem is None else problem.status,
        "error": None if problem is None else problem.code,
        "request_id": trace_of(request).request_id,
    }


def _path_of(request: Request) -> str:
    """The path; that of the route in place of one that names a user."""
    route: str = getattr(request.scope.get("route"), "path", "")
    return route if "user_id" in request.path_params else request.url.path


def _described(body: bytes) -> Any:  # noqa: ANN401  # any JSON
    if len(body) <= MAX_BODY_BYTES:
        try:
            content = json.loads(body or b"null")
            json.dumps(content, allow_nan=False)
        except (ValueError, RecursionError):
            pass
        else:
            return content
    return _digest(body)


def _digest(body: bytes) -> dict[str, Any] | None:
    return {"num_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()} if body else None
