"""Answers a file of requests on the path of HTTP requests, many at a time, in order."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from feature_cache.background import awaited
from model.errors import InputError, Vip5Error
from model.progress import Progress
from service.answering.answers import Recommendation
from service.answering.parts import Service
from service.answering.service import open_service
from service.errors import MalformedBodyError, problem_of
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.schemas.explanation import ExplanationAnswer, ExplanationRequest
from service.schemas.problem import Problem
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.settings import Settings

DEADLINE_MS = 24 * 3600 * 1000
FEATURE_TIMEOUT_MS = 2000

Answer: TypeAlias = Recommendation | ExplanationAnswer | Problem


@dataclass(frozen=True)
class Counts:
    """Numbers of answers and of problem documents."""

    num_answered: int
    num_failed: int


async def predict_file(settings: Settings, requests: Path, out: Path, progress: Progress) -> Counts:
    """Write one answer or problem document for each line of `requests`. Raises BundleError kinds.

    Up to `max_waiting` requests are in flight and in memory.
    """
    patient = settings.model_copy(update={"default_deadline_ms": DEADLINE_MS, "feature_timeout_ms": FEATURE_TIMEOUT_MS})
    num_lines = _num_lines(requests)
    num_answered = num_failed = 0
    async with open_service(patient, Metrics(), Liveness(patient.stall_s)) as service:
        with requests.open(encoding="utf-8", errors="replace") as lines, out.open("w", encoding="utf-8") as answers:
            async for answer in _in_order(service, lines, settings.max_waiting):
                is_failed = isinstance(answer, Problem)
                answers.write(_json(answer) + "\n")
                num_failed += is_failed
                num_answered += not is_failed
                progress("answering", num_answered + num_failed, num_lines)
    return Counts(num_answered=num_answered, num_failed=num_failed)


async def _in_order(service: Service, lines: Iterable[str], max_in_flight: int) -> AsyncIterator[Answer]:
    """Answers in the order of the lines, with at most `max_in_flight` requests at a time."""
    running: deque[asyncio.Task[Answer]] = deque()
    for number, line in enumerate(lines, start=1):
        if len(running) >= max_in_flight:
            yield await running.popleft()
        running.append(awaited(answer_line(service, line, f"line-{number}")))
    while running:
        yield await running.popleft()


async def answer_line(service: Service, line: str, request_id: str) -> Answer:
    """The answer to one line, or a problem document."""
    trace = RequestTrace(request_id=request_id)
    try:
        return await _answer(service, line, trace)
    except (Vip5Error, ValidationError) as error:
        return problem_of(error, request_id)
    finally:
        trace.end()


async def _answer(service: Service, line: str, trace: RequestTrace) -> Recommendation | ExplanationAnswer:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedBodyError(f"{trace.request_id} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MalformedBodyError(f"{trace.request_id} is {type(body).__name__}; each line must be one JSON object")
    task = body.pop("task", None)
    if task == "sequential":
        return await service.recommender.recommend(SequentialRequest.model_validate(body), trace)
    if task == "direct":
        return await service.recommender.recommend(DirectRequest.model_validate(body), trace)
    if task == "explanation":
        return await service.explainer.explain(ExplanationRequest.model_validate(body), trace)
    raise InputError(f"task is {task!r}; it must be sequential, direct or explanation", field="task")


def _json(answer: Answer) -> str:
    if isinstance(answer, Recommendation):
        return answer.json().decode()
    return answer.model_dump_json(exclude_none=isinstance(answer, Problem))


def _num_lines(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines)
