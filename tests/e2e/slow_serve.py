"""`vip5` whose engine waits before each work on items: as many seconds as the file says that SLOW_ENGINE names."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import service.http.server
import service.processes.engine
from model.engine.protocol import Engine
from model.planning.runtime import Runtime
from service.answering.service import load
from service.cli import main
from service.http.app import create_app
from service.settings.settings import Settings

DELAY = Path(os.environ["SLOW_ENGINE"])


SLOW = {"rank", "search", "score"}


class SlowEngine:
    """Any engine, whose work on items takes longer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._engine, name)
        return _delayed(found) if callable(found) and name in SLOW else found


def _delayed(method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def wait_and_call(*arguments: object) -> object:
        time.sleep(float(DELAY.read_text()))
        return method(*arguments)

    return wait_and_call


def load_slow(settings: Settings) -> Runtime:
    runtime = load(settings)
    slow: Any = SlowEngine(runtime.engine)
    return replace(runtime, engine=slow)


if __name__ == "__main__":
    for module in (service.http.server, service.processes.engine):
        vars(module)["create_app"] = functools.partial(create_app, loader=load_slow)
    main()
