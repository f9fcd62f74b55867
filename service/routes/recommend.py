"""POST /recommend/sequential and POST /recommend/direct."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from service.routes.openapi import problems
from service.routes.parts import JsonRoute, Trace, ready_service_of, while_connected
from service.routes.rates import check_rate
from service.schemas.ranking import DirectRequest, RankingAnswer, SequentialRequest

router = APIRouter(
    prefix="/recommend",
    tags=["recommend"],
    route_class=JsonRoute,
    dependencies=[Depends(check_rate)],
    responses=problems(400, 404, 413, 415, 422, 429, 500, 503, 504),
)


@router.post("/sequential")
async def recommend_sequential(body: SequentialRequest, request: Request, trace: Trace) -> RankingAnswer:
    """Next items for a history."""
    recommender = ready_service_of(request).recommender
    return await while_connected(request, recommender.recommend_sequential(body, trace))


@router.post("/direct")
async def recommend_direct(body: DirectRequest, request: Request, trace: Trace) -> RankingAnswer:
    """Rank given candidates, or the whole catalog."""
    recommender = ready_service_of(request).recommender
    return await while_connected(request, recommender.recommend_direct(body, trace))
