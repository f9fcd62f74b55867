"""Answers a file of requests on the path of HTTP requests, many at a time, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from feature_cache.background import awaited
from model.errors import InputError, Vip5Error
from model.progress import Progress
from service.answering.answer_files import AnswerFormat, format_of
from service.answering.answers import Recommendation
from service.answering.part_files import Counts, PartFiles
from service.answering.parts import Service
from service.answering.request_files import Line, digest_of, is_parquet, json_of, num_requests_in, requests_in
from service.answering.service import open_service
from service.errors import MalformedBodyError
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.problem_documents import problem_of
from service.schemas.explanation import ExplanationAnswer, ExplanationRequest
from service.schemas.problem import Problem
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.settings.settings import Settings

DEADLINE_MS = 24 * 3600 * 1000
REDIS_TIMEOUT_MS = 2000
PART_ROWS = 500
"""Answers in a part: a run that is killed repeats at most as many, and those that were in flight."""

Answer: TypeAlias = Recommendation | ExplanationAnswer | Problem


async def predict_file(
    settings: Settings, requests: Path, out: Path, progress: Progress, *, restarts: bool = False
) -> Counts:
    """Write one answer or problem document for each request of a file. Files named *.parquet are Parquet.

    An interrupted run is continued, unless `restarts`. Up to `max_waiting` requests are in flight and in memory, and
    `PART_ROWS` answers more. Raises BundleError kinds and DatasetError.
    """
    patient = patient_settings(settings)
    async with open_service(patient, Metrics(), Liveness(patient.stall_s)) as service:
        if is_stream(requests) or is_stream(out):
            return await _predict_once(service, settings, requests, out, progress)
        bundles = {version.domain.bundle_hash for version in service.domains.stable.values()}
        with PartFiles.opened(out, run_of(bundles, settings, requests), restarts=restarts) as parts:
            return await _predict_rest(service, settings, requests, parts, format_of(out), progress)


def patient_settings(settings: Settings) -> Settings:
    """The settings of a service that nobody waits for."""
    changed: dict[str, object] = {"default_deadline_ms": DEADLINE_MS}
    changed |= dict.fromkeys(("feature_timeout_ms", "history_timeout_ms"), REDIS_TIMEOUT_MS)
    if settings.history_store == "embedded":  # the file is the running service's
        changed["history_store"] = "none"
    return settings.model_copy(update=changed)


def is_stream(path: Path) -> bool:
    """Whether it is a pipe or a device, in which nobody can go back."""
    return path.exists() and not path.is_file()


async def _predict_rest(
    service: Service, settings: Settings, requests: Path, parts: PartFiles, form: AnswerFormat, progress: Progress
) -> Counts:
    """Answer what no part holds yet, and make the output of all."""
    total, first = num_requests_in(requests), parts.done.total
    progress("answering", first, total)
    answers = answers_in_order(service, requests_in(requests, first), first, settings.max_waiting)
    while part := await _next_part(answers, parts.done.total, total, progress):
        counts = counts_of(part)
        parts.add(partial(form.write, [json_of_answer(answer) for answer in part]), counts)
    progress("writing", parts.done.total, total)
    parts.finish(form.join)
    return parts.done


async def _predict_once(service: Service, settings: Settings, requests: Path, out: Path, progress: Progress) -> Counts:
    """Answer a stream, or into one: nothing is kept for another run."""
    if is_parquet(out) or is_parquet(requests):
        raise InputError(f"{out if is_parquet(out) else requests} is no regular file; Parquet needs one")
    total, done = num_requests_in(requests), Counts()
    with out.open("w", encoding="utf-8") as file:
        async for answer in answers_in_order(service, requests_in(requests), 0, settings.max_waiting):
            file.write(json_of_answer(answer) + "\n")
            done += counts_of([answer])
            progress("answering", done.total, total)
    return done


def run_of(bundles: Iterable[str], settings: Settings, requests: Path) -> dict[str, object]:
    """What the answers depend on."""
    return {
        "requests": digest_of(requests),
        "bundle": sorted(bundles),
        "device": settings.device,
        "engine": settings.engine,
        "features": settings.feature_store,
    }


async def _next_part(answers: AsyncIterator[Answer], done: int, total: int | None, progress: Progress) -> list[Answer]:
    part: list[Answer] = []
    async for answer in answers:
        part.append(answer)
        progress("answering", done + len(part), total)
        if len(part) >= PART_ROWS:
            break
    return part


def counts_of(answers: Sequence[Answer]) -> Counts:
    num_failed = sum(isinstance(answer, Problem) for answer in answers)
    return Counts(len(answers) - num_failed, num_failed)


async def answers_in_order(
    service: Service, lines: Iterable[Line], first: int, max_in_flight: int
) -> AsyncIterator[Answer]:
    """Answers in the order of the lines, with at most `max_in_flight` requests at a time. `first` come before them."""
    running: deque[asyncio.Task[Answer]] = deque()
    for number, line in enumerate(lines, start=first + 1):
        if len(running) >= max_in_flight:
            yield await running.popleft()
        running.append(awaited(answer_line(service, line, f"line-{number}")))
    while running:
        yield await running.popleft()


async def answer_line(service: Service, line: Line, request_id: str) -> Answer:
    """The answer to one line, or a problem document."""
    trace = RequestTrace(request_id=request_id)
    try:
        return await _answer(service, line, trace)
    except (Vip5Error, ValidationError) as error:
        return problem_of(error, request_id)
    finally:
        trace.end()


async def _answer(service: Service, line: Line, trace: RequestTrace) -> Recommendation | ExplanationAnswer:
    try:
        body = json_of(line)
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


def json_of_answer(answer: Answer) -> str:
    if isinstance(answer, Recommendation):
        return answer.json().decode()
    return answer.model_dump_json(exclude_none=isinstance(answer, Problem))
