"""A replica on Ray Serve: the app in a process of Ray's, which the ingress hands requests to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import metrics
from starlette.datastructures import Headers
from starlette.types import Message

from feature_cache.background import Background
from model.errors import InputError, Vip5Error
from service.errors import UnauthorizedError
from service.http.app import create_app
from service.http.app_state import AppState, state_of
from service.http.interpreter import tune_interpreter
from service.http.route_classes import API_KEY
from service.observability.json_logging import logging_in_background
from service.ray.directory import Directory, directory_of
from service.ray.forwarded import Forwarded, messages_of
from service.ray.options import ReplicaOptions
from service.ray.problems import messages_of_problem
from service.ray.residents import Residents
from service.ray.settings import settings_of
from service.versions.held_domains import HeldDomains

logger = logging.getLogger(__name__)

POLL_S = 0.02
SHOWN_S = 10.0
SHOWN = {
    "vip5_num_requests_waiting": "Requests that wait for the engine.",
    "vip5_num_requests_running": "Requests in the engine.",
}
"""Metrics that Ray's metrics have too; GET /metrics of the ingress has all."""


class Replica:
    """One engine. Ray calls the methods; `reconfigure` opens the service before any request comes."""

    def __init__(self, options: ReplicaOptions) -> None:
        """Raises SettingsError for settings that replicas on Ray cannot have."""
        self._options = options
        self._stack = AsyncExitStack()
        self._app: FastAPI | None = None
        self._residents: Residents | None = None
        self._own_hash = ""
        self._directory = Directory()
        self.replica_id = serve.get_replica_context().replica_id.unique_id

    async def reconfigure(self, given: Mapping[str, Any]) -> None:
        """Open the service at the first call. Then know the domains that may be asked for, which may change later."""
        if self._app is None:
            self._app = await self._open()
        if self._residents is not None:
            root = self._state.settings.admin_options.bundles_root
            self._directory = await asyncio.to_thread(
                directory_of, given["domains"], self._own_hash, root, self._directory
            )
            for problem in self._directory.problems.values():
                logger.error("domain_not_found", extra={"reason": problem})
            await self._residents.change_directory(self._directory.versions)

    async def answer(self, request: Forwarded) -> AsyncIterator[Sequence[Message]]:
        """The messages of the answer, as they are made."""
        assert self._app is not None
        async with AsyncExitStack() as held:
            try:
                await self._hold(request, held)
            except Vip5Error as error:
                yield messages_of_problem(error, request.scope, self._state.metrics)
                return
            async for messages in messages_of(self._app, request):
                yield messages

    async def answer_whole(self, request: Forwarded) -> tuple[int, bytes]:
        """Status and body of a short answer."""
        assert self._app is not None
        found = [message async for messages in messages_of(self._app, request) for message in messages]
        return found[0]["status"], b"".join(each.get("body", b"") for each in found[1:])

    def render_metrics(self) -> tuple[str, str]:
        """The replica's name and its metrics in Prometheus' text format."""
        return self.replica_id, self._state.metrics.render().content.decode()

    def check_health(self) -> None:
        """Raises RuntimeError if the process should be replaced."""
        reasons = self._state.liveness.reasons()
        if reasons:
            raise RuntimeError("; ".join(reasons))

    async def __del__(self) -> None:
        """Drain. Ray calls this once no requests run any more, or after graceful_shutdown_timeout_s."""
        await self._stack.aclose()

    @property
    def _state(self) -> AppState:
        assert self._app is not None, "Ray calls reconfigure first"
        return state_of(self._app)

    async def _open(self) -> FastAPI:
        """Start the app, and wait until it is ready. Raises what it raises, and RuntimeError."""
        tune_interpreter()
        settings = await asyncio.to_thread(settings_of, self._options)
        log = self._stack.enter_context(logging_in_background(settings.log_level))
        app = create_app(settings)
        state = state_of(app)
        log.on_drop = state.metrics.count_dropped_log_lines
        state.process_problems = lambda: [*log.problems, *self._directory.problems.values()]
        state.holds_all = self._options.domains_per_replica is None
        await self._stack.enter_async_context(_running(app))
        await _until_ready(state)
        replica = state.service.administration.replica
        if self._options.domains_per_replica is not None:
            assert isinstance(replica, HeldDomains)
            multiplex = serve.multiplexed(max_num_models_per_replica=self._options.domains_per_replica)
            gauge = metrics.Gauge("vip5_held_domains", "Domains that a replica holds.")
            self._residents = Residents(replica, multiplex, self._options.load_s, gauge.set)
            self._stack.push_async_callback(self._residents.close)
        self._own_hash = state.service.administration.own_hash
        shown = Background(state.metrics).kept("ray_metrics", lambda: _show(state))
        await self._stack.enter_async_context(shown)
        return app

    async def _hold(self, request: Forwarded, held: AsyncExitStack) -> None:
        """Hold the request's domains until the stack is closed.

        Raises NotReadyError for a domain that cannot be loaded in time, InputError for too many domains.
        """
        most = self._options.domains_per_replica
        if self._residents is None or most is None:
            return
        names = [name for name in request.domains if self._may_ask(request, name)]
        if len(names) > most:
            raise InputError(
                f"the requests name {len(names)} domains, and a replica holds at most {most}; send those of each "
                "domain on their own"
            )
        for name in names:
            await held.enter_async_context(self._residents.used(name))

    def _may_ask(self, request: Forwarded, name: str) -> bool:
        """Whether it is worth loading a domain for whoever asks; the app refuses the others."""
        state, headers = self._state, Headers(raw=request.scope["headers"])
        authorization = headers.get("Authorization")
        try:
            if request.scope["path"].startswith("/admin/"):
                return state.admin_tokens is not None and bool(state.admin_tokens.check(authorization or ""))
            keys = state.api_keys
            return keys is None or keys.check(authorization, headers.get(API_KEY)).allows_domain(name)
        except UnauthorizedError:
            return False


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """The app's lifespan, in a task of its own: Ray opens and closes a replica in different ones."""
    is_open, is_ending = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.router.lifespan_context(app):
            is_open.set()
            await is_ending.wait()

    living = asyncio.create_task(live())
    opened = asyncio.create_task(is_open.wait())
    await asyncio.wait([living, opened], return_when=asyncio.FIRST_COMPLETED)
    opened.cancel()
    if living.done():
        await living
    try:
        yield
    finally:
        is_ending.set()
        await living


async def _until_ready(state: AppState) -> None:
    """Raises RuntimeError if a domain's first request fails."""
    while reasons := state.readiness.reasons():
        if state.readiness.has_failed:
            raise RuntimeError("; ".join(reasons))
        await asyncio.sleep(POLL_S)


async def _show(state: AppState) -> None:
    """Tell Ray's metrics some of ours, without end."""
    gauges = {name: metrics.Gauge(name, text, tag_keys=("lane",)) for name, text in SHOWN.items()}
    while True:
        for (name, labels), value in state.metrics.samples().items():
            if name in gauges:
                gauges[name].set(value, tags={"lane": dict(labels).get("lane", "")})
        await asyncio.sleep(SHOWN_S)
