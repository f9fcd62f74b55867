"""GET /health/live and /health/ready, and their aliases in the Open Inference Protocol (/v2)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.http.app_state import AppState, state_of
from service.http.dependencies import DomainPath, Trace, service_of
from service.http.openapi import problems
from service.schemas.health import LiveAnswer, ReadyAnswer

router = APIRouter(tags=["health"])

NOT_LIVE: dict[int | str, dict[str, Any]] = {
    503: {"model": LiveAnswer, "description": "A lane has failed or is stuck; `reasons` says which."}
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": ReadyAnswer, "description": "Not ready; `reasons` says why."}
}


@router.get("/health/live", responses=NOT_LIVE)
@router.get("/v2/health/live", include_in_schema=False)
async def live(request: Request, response: Response) -> LiveAnswer:
    """Whether the process works, or should be restarted."""
    reasons = state_of(request.app).liveness.reasons()
    if reasons:
        response.status_code = 503
    return LiveAnswer(status="not_live" if reasons else "live", reasons=reasons)


@router.get("/health/ready", responses=NOT_READY)
@router.get("/v2/health/ready", include_in_schema=False)
async def ready(request: Request, response: Response) -> ReadyAnswer:
    """Whether the service accepts requests."""
    return _answer(state_of(request.app), None, response)


@router.get("/v2/models/{name}/ready", responses=NOT_READY | problems(404))
async def domain_ready(name: DomainPath, request: Request, response: Response, trace: Trace) -> ReadyAnswer:
    """Whether the service accepts requests for one domain."""
    trace.domain = service_of(request).domains.domain(name).name
    return _answer(state_of(request.app), name, response)


def _answer(state: AppState, domain: str | None, response: Response) -> ReadyAnswer:
    hide = state.private_paths.hide
    reasons = [hide(reason) for reason in state.readiness.reasons(domain)]
    if reasons:
        response.status_code = 503
    degraded = [hide(fault) for fault in state.readiness.degraded()]
    return ReadyAnswer(status="not_ready" if reasons else "ready", reasons=reasons, degraded=degraded)
