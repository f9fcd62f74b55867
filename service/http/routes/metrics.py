"""GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from service.http.app_state import state_of

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """All metrics in the Prometheus or OpenMetrics text format."""
    exposition = state_of(request.app).metrics.render(request.headers.get("accept", ""))
    return Response(exposition.content, media_type=exposition.media_type)
