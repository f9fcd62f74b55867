"""What goes into the audit log: administrative calls and refused credentials."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fastapi import Request

from service.errors import code_of, status_of
from service.http.app_state import state_of
from service.http.problems import trace_of

MAX_BODY_BYTES = 4_096
"""Longer bodies, such as embeddings, are named by size and digest."""


async def audit_call(request: Request, actor: str | None, body: bytes, status: int, error: Exception | None) -> None:
    """An administrative call, with its result."""
    audit = state_of(request.app).audit
    if audit is not None:
        await audit.write(_entry(request, actor, status, error) | {"body": _described(body)})


def audit_refusal(request: Request, actor: str | None, error: Exception) -> None:
    """A call that was refused or broken off."""
    audit = state_of(request.app).audit
    if audit is not None:
        audit.note(_entry(request, actor, status_of(error).status, error))


def _entry(request: Request, actor: str | None, status: int, error: Exception | None) -> dict[str, Any]:
    return {
        "actor": actor,
        "address": request.client.host if request.client else None,
        "method": request.method,
        "path": request.url.path,
        "status": status,
        "error": None if error is None else code_of(error),
        "request_id": trace_of(request).request_id,
    }


def _described(body: bytes) -> Any:  # noqa: ANN401  # any JSON
    if not body:
        return None
    if len(body) <= MAX_BODY_BYTES:
        try:
            return json.loads(body)
        except ValueError:
            pass
    return {"num_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
