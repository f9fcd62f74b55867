"""Wires the service together; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from model.engine.runtime import Runtime, load_runtime
from service.admin_token import AdminToken
from service.api_keys import ApiKeys
from service.batching.lanes import Lanes
from service.beam_reduction import open_reduction
from service.epochs.domains import Domains
from service.epochs.journal import Journal, NoJournal
from service.epochs.opening import EpochParts, open_epochs, open_journal
from service.explainer import Explainer
from service.features import open_features
from service.liveness import Liveness
from service.metrics import Metrics
from service.problems import install_problem_handlers
from service.rate_limits import RateLimits
from service.readiness import Readiness, warm_up
from service.recommender import Recommender
from service.request_context import RequestContext
from service.routes import admin, domains, explain, health, metrics, recommend
from service.routes.keys import SECURITY
from service.routes.openapi import install_openapi, problems
from service.routes.parts import Service
from service.settings import Settings
from service.tracing.traces import Traces, open_traces

LANES_CLOSE_S = 5.0

Loader = Callable[[Settings], Runtime]


def load(settings: Settings) -> Runtime:
    """Verify and load the bundle. Raises BundleError kinds."""
    return load_runtime(
        settings.bundle,
        device=settings.device,
        num_threads=settings.num_threads,
        engine=settings.engine,
        buckets=settings.graph_buckets,
    )


@asynccontextmanager
async def open_service(
    settings: Settings,
    metrics: Metrics,
    liveness: Liveness,
    loader: Loader = load,
    journal: Journal | None = None,
) -> AsyncIterator[Service]:
    """Load the bundle and run the lanes of its engine; without a journal the bundle is served as it is.

    Raises BundleError kinds and BeamTableError.
    """
    runtime = await asyncio.to_thread(loader, settings)
    async with open_features(settings.feature_options, metrics) as features:
        metrics.watch_gpu(settings.device)
        lanes = Lanes(runtime.engine, settings.queue_limits, metrics, liveness.note_crash)
        liveness.watch(lanes.all)
        lanes.start()
        domains = Domains()
        beams = open_reduction(settings.reduction_options, lanes.ranking.completion_s)
        recommender = Recommender(domains, lanes, metrics, settings.request_limits, beams)
        try:
            parts = EpochParts(runtime, domains, features, lanes, recommender, metrics)
            async with open_epochs(settings, parts, journal or NoJournal()) as administration:
                yield Service(
                    domains=domains,
                    recommender=recommender,
                    explainer=Explainer(domains, lanes, metrics, settings.request_limits),
                    administration=administration,
                    problems=lambda: [*features.problems(), *administration.replica.problems],
                )
        finally:
            await recommender.close()
            await lanes.close(LANES_CLOSE_S)


def create_app(settings: Settings, loader: Loader = load, traces: Traces | None = None) -> FastAPI:
    """The app; its lifespan loads the bundle, and warms the domains up in the background.

    `traces` left out are those that the settings ask for. Raises TracesError and ApiKeysError.
    """
    keys = None if settings.api_keys_file is None else ApiKeys(settings.api_keys_file)
    service_metrics = Metrics()
    kept_traces = traces or open_traces(settings.trace_options)
    readiness = Readiness()
    liveness = Liveness(settings.stall_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        journal = open_journal(settings.journal_options)
        async with open_service(settings, service_metrics, liveness, loader, journal) as service:
            app.state.service = service
            readiness.degraded = lambda: [*service.problems(), *(keys.problems if keys else ())]
            readiness.await_domains(service.domains.stable)
            versions = list(service.domains.stable.values())
            warming = asyncio.create_task(warm_up(readiness, service.recommender, versions))
            try:
                yield
            finally:
                readiness.drain()
                warming.cancel()
                await asyncio.to_thread(kept_traces.close)

    app = FastAPI(title="vip5-serve", summary="Multimodal generative recommendation", lifespan=lifespan, redoc_url=None)
    app.state.metrics = service_metrics
    app.state.readiness = readiness
    app.state.liveness = liveness
    app.state.rate_limits = None if settings.rate_limit is None else RateLimits(settings.rate_limit)
    app.state.api_keys = keys
    app.state.max_body_bytes = settings.request_limits.max_body_bytes
    app.state.receive_s = settings.receive_s
    app.add_middleware(RequestContext, metrics=service_metrics, traces=kept_traces)
    install_problem_handlers(app, service_metrics)
    for module in (recommend, explain, domains):
        app.include_router(
            module.router, dependencies=SECURITY if keys else (), responses=problems(401) if keys else {}
        )
    app.include_router(health.router)
    admin_app = app if settings.admin_port is None else _admin_app(app, service_metrics, kept_traces)
    app.state.admin_app = admin_app
    admin_app.include_router(metrics.router)
    if settings.admin_options.token is not None:
        app.state.admin_token = AdminToken(settings.admin_options.token)
        admin_app.include_router(admin.router)
    for each in {app, admin_app}:
        install_openapi(each)
    return app


def _admin_app(app: FastAPI, service_metrics: Metrics, traces: Traces) -> FastAPI:
    """What is served on a port of its own; it shares everything with the app, whose lifespan it lives in."""
    admin_app = FastAPI(title="vip5-serve: administration", redoc_url=None)
    admin_app.state = app.state
    admin_app.add_middleware(RequestContext, metrics=service_metrics, traces=traces)
    install_problem_handlers(admin_app, service_metrics)
    return admin_app
