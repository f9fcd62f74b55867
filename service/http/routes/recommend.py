"""POST /recommend/sequential and POST /recommend/direct, one request or many."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.http.batches import answer_batch
from service.http.callers import require_domain
from service.http.dependencies import Trace, ready_service_of
from service.http.openapi import problems
from service.http.responses import json_response, while_connected
from service.http.route_classes import RecommendRoute
from service.schemas.batch import BatchAnswer, DirectBatch, SequentialBatch
from service.schemas.ranking import DirectRequest, RankingAnswer, SequentialRequest

router = APIRouter(
    prefix="/recommend",
    tags=["recommend"],
    route_class=RecommendRoute,
    responses=problems(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
)


@router.post("/sequential", response_model=RankingAnswer)
async def recommend_sequential(body: SequentialRequest, request: Request, trace: Trace) -> Response:
    """Recommend the next items after a history."""
    require_domain(request, body.domain)
    recommender = ready_service_of(request).recommender
    return json_response(await while_connected(request.receive, recommender.recommend(body, trace)))


@router.post("/direct", response_model=RankingAnswer)
async def recommend_direct(body: DirectRequest, request: Request, trace: Trace) -> Response:
    """Rank given candidates, or the whole catalog."""
    require_domain(request, body.domain)
    recommender = ready_service_of(request).recommender
    return json_response(await while_connected(request.receive, recommender.recommend(body, trace)))


@router.post("/sequential:batch", response_model=BatchAnswer)
async def recommend_sequential_batch(body: SequentialBatch, request: Request) -> Response:
    """Recommend for many histories at once. All requests are admitted or none, and each has its own answer."""
    return await answer_batch(request, body.requests)


@router.post("/direct:batch", response_model=BatchAnswer)
async def recommend_direct_batch(body: DirectBatch, request: Request) -> Response:
    """Rank many lists of candidates at once. All requests are admitted or none, and each has its own answer."""
    return await answer_batch(request, body.requests)
