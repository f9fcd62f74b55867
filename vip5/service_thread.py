"""Runs the service's parts on a thread of their own, so that callers need no event loop, and may have one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from model.errors import Vip5Error
from model.planning.runtime import Runtime
from service.answering.parts import Service
from service.answering.prediction import patient_settings
from service.answering.service import load, open_service
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.settings.settings import Settings

T = TypeVar("T")


class ClosedBundleError(Vip5Error):
    """The bundle was closed before this call."""

    code = "closed_bundle"


class ServiceThread:
    """An open service. Calls from several threads take turns."""

    def __init__(self, settings: Settings) -> None:
        """Raises what `open_service` raises."""
        self._settings = patient_settings(settings)
        self._turn = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._runtime: Runtime | None = None
        opened: Future[Service] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="vip5", daemon=True)
        self._thread.start()
        self._service = opened.result()

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None
        return self._runtime

    def call(self, ask: Callable[[Service], Awaitable[T]]) -> T:
        """What `ask` finds, on the service's event loop. Raises what it raises, and ClosedBundleError."""
        return self.exclusively(lambda: self._wait(ask))

    def exclusively(self, work: Callable[[], T]) -> T:
        """What `work` finds on this thread, while nothing else uses the engine. Raises ClosedBundleError."""
        with self._turn:
            if not self._thread.is_alive():
                raise ClosedBundleError("the bundle is closed; open it again with vip5.open_bundle")
            return work()

    def close(self) -> None:
        """Wait for the running call, then free the engine. Idempotent."""
        with self._turn:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._closing.set)
                self._thread.join()

    def _wait(self, ask: Callable[[Service], Awaitable[T]]) -> T:
        async def asked() -> T:
            return await ask(self._service)

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result()

    def _run(self, opened: Future[Service]) -> None:
        try:
            self._loop.run_until_complete(self._serve(opened))
        finally:
            self._loop.close()

    async def _serve(self, opened: Future[Service]) -> None:
        try:
            liveness = Liveness(self._settings.stall_s)
            async with open_service(self._settings, Metrics(), liveness, self._load) as service:
                opened.set_result(service)
                await self._closing.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    def _load(self, settings: Settings) -> Runtime:
        self._runtime = load(settings)
        return self._runtime
