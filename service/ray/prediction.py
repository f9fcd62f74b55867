"""Predictions on Ray Data, for files of requests that are too much for one machine.

Actors have the engine and answer batches of requests; answers return to the machine that keeps the parts. Every machine
must have the bundle under the same path.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from model.bundle.manifest import read_manifest
from model.errors import EngineError, InputError
from model.progress import Progress
from quiet_libraries.on_ray import connect
from service.answering.answer_files import format_of
from service.answering.part_files import Counts, PartFiles
from service.answering.prediction import (
    PART_ROWS,
    answers_in_order,
    counts_of,
    is_stream,
    json_of_answer,
    patient_settings,
    run_of,
)
from service.answering.request_files import Line, num_requests_in, requests_in
from service.answering.service import open_service
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.settings.settings import Settings

BATCH_ROWS = 50
"""Requests that an actor is given at once."""

_Objects = dict[str, NDArray[np.object_]]
"""A batch of Ray's: one column, `item`, of objects that are sent pickled."""


@dataclass(frozen=True)
class _Asked:
    """Consecutive requests; `first` come before them."""

    first: int
    lines: Sequence[Line]


@dataclass(frozen=True)
class _Answered:
    """Their answers as JSON."""

    first: int
    answers: Sequence[str]
    num_failed: int


class _Answering:
    """An actor: opens the service once, on a thread with an event loop, and answers."""

    def __init__(self, settings: Settings) -> None:
        self._max_in_flight = settings.max_waiting
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="service", daemon=True).start()
        stack = AsyncExitStack()  # it is closed with the process
        opened = open_service(settings, Metrics(), Liveness(settings.stall_s))
        self._service = asyncio.run_coroutine_threadsafe(stack.enter_async_context(opened), self._loop).result()
        self._stack = stack

    def __call__(self, batches: _Objects) -> _Objects:
        return _objects([self._answered(asked) for asked in batches["item"]])

    def _answered(self, asked: _Asked) -> _Answered:
        return asyncio.run_coroutine_threadsafe(self._answer(asked), self._loop).result()

    async def _answer(self, asked: _Asked) -> _Answered:
        running = answers_in_order(self._service, asked.lines, asked.first, self._max_in_flight)
        answers = [answer async for answer in running]
        return _Answered(asked.first, [json_of_answer(each) for each in answers], counts_of(answers).num_failed)


def predict_on_ray(
    settings: Settings,
    requests: Path,
    out: Path,
    progress: Progress,
    *,
    restarts: bool = False,
    num_actors: int = 1,
) -> Counts:
    """As `predict_file`, on the cluster that RAY_ADDRESS names, or one on this machine.

    The parts are the same, too: one may go on where the other was interrupted. Raises EngineError if Ray fails.
    """
    for path in (requests, out):
        if is_stream(path):
            raise InputError(f"{path} is no regular file; on Ray, both files have to be")
    connect()
    run = run_of([read_manifest(settings.bundle).hash], settings, requests)
    with PartFiles.opened(out, run, restarts=restarts) as parts:
        total, first, form = num_requests_in(requests), parts.done.total, format_of(out)
        progress("answering", first, total)
        held: list[str] = []
        num_failed = 0
        for answered in _answers(patient_settings(settings), requests_in(requests, first), first, num_actors):
            held += answered.answers
            num_failed += answered.num_failed
            progress("answering", parts.done.total + len(held), total)
            if len(held) >= PART_ROWS:
                parts.add(partial(form.write, held), Counts(len(held) - num_failed, num_failed))
                held, num_failed = [], 0
        if held:
            parts.add(partial(form.write, held), Counts(len(held) - num_failed, num_failed))
        progress("writing", parts.done.total, total)
        parts.finish(form.join)
        return parts.done


def _answers(settings: Settings, lines: Iterable[Line], first: int, num_actors: int) -> Iterator[_Answered]:
    """Answers in order."""
    asked = list(_batches(iter(lines), first))
    if not asked:
        return
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    answered = ray.data.from_items(asked, override_num_blocks=len(asked)).map_batches(
        _Answering,
        fn_constructor_args=(settings,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_actors),
        num_cpus=settings.num_threads or 1,
        num_gpus=None if settings.device == "cpu" else 1,
    )
    try:
        for row in answered.iter_rows():
            found: _Answered = row["item"]
            assert found.first == first, "Ray keeps the order"
            first += len(found.answers)
            yield found
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray failed ({error}); finished answers are kept, so run the command again") from error


def _batches(lines: Iterator[Line], first: int) -> Iterator[_Asked]:
    while batch := list(islice(lines, BATCH_ROWS)):
        yield _Asked(first, batch)
        first += len(batch)


def _objects(items: Sequence[object]) -> _Objects:
    column = np.empty(len(items), dtype=np.object_)
    column[:] = items
    return {"item": column}
