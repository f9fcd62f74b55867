"""`vip5` that waits at a named point, so that a test can end processes just there.

FAULT_FOLDER is a folder. A point that its file `point` names is entered by writing the file `reached`, and left when
the file `go` exists. While the file `held` exists, the engine answers nothing.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import service.http.server
import service.processes.engine
from model.planning.runtime import Runtime
from service.answering.service import load
from service.cli import main
from service.http.app import create_app
from service.processes.hub import Hub
from service.processes.supervisor import Workers
from service.settings.settings import Settings
from service.versions.version_loader import Sources
from tests.engines import DisguisedEngine

FOLDER = Path(os.environ["FAULT_FOLDER"])
LOOK_S = 0.005


def is_due(point: str) -> bool:
    named = FOLDER / "point"
    if not named.exists() or named.read_text() != point or (FOLDER / "reached").exists():
        return False
    (FOLDER / "reached").write_text("")
    return True


def pause(point: str) -> None:
    if is_due(point):
        while not (FOLDER / "go").exists():
            time.sleep(LOOK_S)


async def pause_async(point: str) -> None:
    if is_due(point):
        while not (FOLDER / "go").exists():  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(LOOK_S)


def before(owner: type, name: str, point: str) -> None:
    """Wait before a coroutine function of a class."""
    whole: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(whole)
    async def waiting(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        await pause_async(point)
        return await whole(*arguments, **options)

    setattr(owner, name, waiting)


def after(owner: type, name: str, point: str) -> None:
    whole: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(whole)
    async def waiting(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        result = await whole(*arguments, **options)
        await pause_async(point)
        return result

    setattr(owner, name, waiting)


def before_at_once(owner: type, name: str, point: str) -> None:
    """The same before a plain function: the event loop waits."""
    whole: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(whole)
    def waiting(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        pause(point)
        return whole(*arguments, **options)

    setattr(owner, name, waiting)


class HeldEngine(DisguisedEngine):
    """Answers nothing while the file `held` exists."""

    def search(self, batch: Any) -> Any:  # noqa: ANN401
        while (FOLDER / "held").exists():
            time.sleep(LOOK_S)
        return self._engine.search(batch)


def load_faulty(settings: Settings) -> Runtime:
    pause("load")
    runtime = load(settings)
    return replace(runtime, engine=HeldEngine(runtime.engine))


@contextmanager
def fault_points() -> Iterator[None]:
    for module in (service.http.server, service.processes.engine):
        vars(module)["create_app"] = functools.partial(create_app, loader=load_faulty)
    before(Hub, "join", "join")
    before(Hub, "prepare", "before prepare")
    after(Hub, "prepare", "after prepare")
    before_at_once(Hub, "publish", "before publish")
    after(Hub, "published", "before answer")
    before(Workers, "drain", "drain")
    before_at_once(Sources, "open", "open")
    yield


if __name__ == "__main__":
    with fault_points():
        main()
