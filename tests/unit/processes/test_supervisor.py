"""A worker that no longer follows is ended; one whose engine process was itself stopped for a while is not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.processes import supervisor
from service.processes.supervisor import WorkerEndedError, Workers
from service.settings.settings import Settings

PATIENCE_S = 0.5


class Process:
    """One that does not end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        return 0


def link() -> Any:  # noqa: ANN401  # what is looked at of a WorkerLink
    ended: list[str] = []
    return SimpleNamespace(heard_at=time.monotonic(), is_lost=asyncio.Event(), end=ended.append, ended=ended)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(supervisor, "LOOK_S", 0.01)
    settings = Settings(bundle=Path("none"), worker_ack_s=PATIENCE_S)
    others: Any = None
    return Workers(settings, 1, others, others, others)


async def watched(workers: Workers, worker: Any, process: Process) -> None:  # noqa: ANN401
    started: Any = SimpleNamespace(process=process)
    await asyncio.wait_for(workers._watch(started, worker), 30)


async def test_a_worker_that_lives_on_without_its_connection_is_ended(workers: Workers) -> None:
    worker = link()
    worker.is_lost.set()
    await watched(workers, worker, Process())
    assert worker.ended == [f"it has not been heard of for {PATIENCE_S:g} s"]


async def test_workers_survive_that_the_engine_process_is_stopped_for_a_while(workers: Workers) -> None:
    worker, process = link(), Process()
    watching = asyncio.create_task(watched(workers, worker, process))
    await asyncio.sleep(0.02)  # it watches
    time.sleep(2 * PATIENCE_S)  # noqa: ASYNC251  # the whole process stands still
    await asyncio.sleep(0.02)
    worker.heard_at = time.monotonic()
    await asyncio.sleep(0.02)
    process.ended.set()
    await watching
    assert worker.ended == []


async def test_a_worker_that_does_not_listen_is_named_with_the_time_that_it_had(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_S", 0.01)
    worker: Any = SimpleNamespace(is_greeted=asyncio.Event(), is_lost=asyncio.Event())
    with pytest.raises(WorkerEndedError, match=r"^worker 2 did not listen within 0\.01 s of its start and was ended"):
        await workers._let_listen(2, worker)
