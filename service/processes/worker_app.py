"""The app of a worker: the routes of every app, around lanes and versions of the engine process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from feature_cache.background import Background
from model.bundle.planning_files import read_foundation
from model.bundle.signatures import trusted_keys
from service.answering.beam_reduction import open_reduction
from service.answering.explainer import Explainer
from service.answering.parts import Service
from service.answering.recommender import RankingRules, Recommender
from service.answering.stored_histories import StoredHistories
from service.channel.channel import Channel
from service.channel.messages import (
    Acknowledged,
    Answer,
    AnswerPart,
    Counted,
    Discard,
    FromEngine,
    Hello,
    Listen,
    Listening,
    Prepare,
    Publish,
    Ready,
    Receive,
    Status,
    Stop,
    ToldHistories,
)
from service.histories.opening import open_histories
from service.http.app_state import AppState, state_of
from service.http.wiring import build_app
from service.observability.metrics import Metrics
from service.observability.tracing.traces import Traces
from service.processes.history_calls import RemoteHistories
from service.processes.worker_calls import WorkerCalls
from service.processes.worker_counts import WorkerCounts
from service.processes.worker_lanes import RemoteLanes
from service.processes.worker_status import StatusReport
from service.processes.worker_versions import BundleFolders, WorkerVersions
from service.settings.settings import Settings
from service.versions.domains import Domains
from service.versions.features import open_features


class WorkerApp:
    """The app, and the connection to the engine process. Used on the event loop only."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None, traces: Traces | None = None) -> None:
        """`metrics` default to new ones, `traces` to those in the settings."""
        self.next_step = asyncio.Event()
        """The worker may listen, or must end."""
        self.must_end = asyncio.Event()
        self.app: FastAPI
        self.served: ASGIApp
        """The app, with what is passed on to the engine process."""
        self._settings = settings
        self._metrics = metrics
        self._traces = traces
        self._channel: Channel
        self._shared: socket.socket
        self._calls: WorkerCalls
        self._lanes: RemoteLanes
        self._histories: RemoteHistories
        self._counts: WorkerCounts
        self._versions: WorkerVersions
        self._state: AppState

    async def connect(self, connected: socket.socket, shared: socket.socket, on_lost: Callable[[], None]) -> None:
        """Take over the sockets to the engine process: for messages, and for descriptors of shared memory.

        `on_lost` is called when the engine process has closed the first.
        """
        self._shared = shared
        settings = self._settings
        self._channel = await Channel.over(connected, FromEngine, self._handle, on_lost)
        self._calls = WorkerCalls(self._channel, settings.root_path)
        self._lanes = RemoteLanes(self._channel, settings.max_waiting)
        self._histories = RemoteHistories(self._channel)
        self.app = build_app(settings, self._opened, self._traces, self._metrics)
        self.served = self._calls.around(self.app)
        self._state = state_of(self.app)
        self._state.shared_counts = self._counts = WorkerCounts(self._channel)

    def greet(self) -> None:
        """Ask the engine process for what it serves; the app's lifespan has begun."""
        self._channel.send(Hello(os.getpid()))

    def tell_listening(self) -> None:
        self._channel.send(Listening())

    def end(self) -> None:
        """Refuse new requests, complete what runs, and end."""
        self._lanes.is_draining = True
        self._state.readiness.drain()
        self.must_end.set()
        self.next_step.set()

    @property
    def is_broken(self) -> bool:
        """The connection to the engine process was given up here."""
        return self._channel.is_broken

    def close(self) -> None:
        self._channel.close()
        self._shared.close()

    def _handle(self, message: FromEngine) -> None:
        match message:
            case Prepare() | Publish() | Discard():
                self._versions.handle(message)
            case Answer() | AnswerPart() | Receive():
                self._calls.handle(message)
            case Listen():
                self.next_step.set()
            case Ready():
                self._lanes.is_draining = message.is_draining
                self._state.readiness.follow(message.waiting_for, is_draining=message.is_draining)
                self._channel.send(Acknowledged(message.number))
            case Stop():
                self.end()
            case Counted():
                self._counts.handle(message)
            case ToldHistories():
                self._histories.handle(message)
            case _:
                self._lanes.handle(message)

    @asynccontextmanager
    async def _opened(self, state: AppState) -> AsyncIterator[Service]:
        settings, metrics, lanes = self._settings, state.metrics, self._lanes
        trusted = trusted_keys(settings.trusted_keys)
        foundation = await asyncio.to_thread(read_foundation, settings.bundle, trusted)
        folders = BundleFolders(settings.bundle, settings.admin_options.bundles_root, foundation, trusted)
        background, domains = Background(metrics), Domains()
        async with (
            aclosing(background),
            open_features(settings.feature_options, metrics, background) as features,
            open_histories(settings.history_options, metrics, background, self._histories) as histories,
        ):
            beams = open_reduction(settings.reduction_options, lanes.ranking.completion_s)
            stored = StoredHistories(histories, metrics, settings.max_history)
            rules = RankingRules(settings.request_limits, beams, stored)
            recommender = Recommender(domains, lanes, metrics, rules, background)
            versions = self._versions = WorkerVersions(
                domains, folders, features, self._channel, self._shared, background
            )

            def status() -> Status:
                problems = [*state.readiness.degraded()]
                return Status(problems, features.is_redis_up, dict(versions.requests), dict(versions.rankings))

            report = StatusReport(self._channel, status)
            versions.when_superseded = report.send

            async with (
                background.kept("versions", versions.follow),
                background.kept("status", report.run),
                aclosing(recommender),
            ):
                yield Service(
                    domains=domains,
                    lanes=lanes,
                    recommender=recommender,
                    explainer=Explainer(domains, lanes, metrics, settings.request_limits),
                    changes=None,
                    histories=histories,
                    background=background,
                    problems=lambda: [
                        *features.problems(),
                        *(() if histories is None else histories.store.problems),
                        *background.problems,
                    ],
                )
