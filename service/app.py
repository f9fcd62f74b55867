"""Wires the service together; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from model.engine.runtime import Runtime, load_runtime
from service.batching.lanes import Lanes
from service.explainer import Explainer
from service.features import open_features
from service.liveness import Liveness
from service.metrics import Metrics
from service.problems import install_problem_handlers
from service.readiness import Readiness, warm_up
from service.recommender import Recommender
from service.request_context import RequestContext
from service.routes import domains, explain, health, metrics, recommend
from service.routes.openapi import install_openapi
from service.routes.parts import Service
from service.settings import Settings
from service.stages import Epoch
from service.tracing.traces import Traces, open_traces

LANES_CLOSE_S = 5.0

Loader = Callable[[Settings], Runtime]


def load(settings: Settings) -> Runtime:
    """Verify and load the bundle. Raises BundleError kinds."""
    return load_runtime(settings.bundle, device=settings.device, num_threads=settings.num_threads)


@asynccontextmanager
async def open_service(
    settings: Settings, metrics: Metrics, liveness: Liveness, loader: Loader = load
) -> AsyncIterator[Service]:
    """Load the bundle and run the lanes of its engine. Raises BundleError kinds."""
    runtime = await asyncio.to_thread(loader, settings)
    async with open_features(settings.feature_options, runtime, metrics) as features:
        epoch = Epoch(domains=runtime.domains, features=features.store)
        for domain in epoch.domains.values():
            metrics.set_bundle(domain.name, domain.bundle_hash)
        metrics.set_epoch_started()
        metrics.watch_gpu(settings.device)
        lanes = Lanes(runtime.engine, settings.queue_limits, metrics, liveness.note_crash)
        liveness.watch(lanes.all)
        lanes.start()
        try:
            yield Service(
                epoch=epoch,
                recommender=Recommender(epoch, lanes, metrics, settings.request_limits),
                explainer=Explainer(epoch, lanes, metrics, settings.request_limits),
                feature_problems=features.problems,
            )
        finally:
            await lanes.close(LANES_CLOSE_S)


def create_app(settings: Settings, loader: Loader = load, traces: Traces | None = None) -> FastAPI:
    """The app; its lifespan loads the bundle, and warms the domains up in the background.

    `traces` left out are those that the settings ask for. Raises TracesError.
    """
    service_metrics = Metrics()
    kept_traces = traces or open_traces(settings.trace_options)
    readiness = Readiness()
    liveness = Liveness(settings.stall_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(settings, service_metrics, liveness, loader) as service:
            app.state.service = service
            readiness.degraded = service.feature_problems
            readiness.await_domains(service.epoch.domains)
            warming = asyncio.create_task(warm_up(readiness, service.recommender, service.epoch.domains.values()))
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
    app.state.max_body_bytes = settings.request_limits.max_body_bytes
    app.add_middleware(RequestContext, metrics=service_metrics, traces=kept_traces)
    install_problem_handlers(app, service_metrics)
    for module in (recommend, explain, domains, health, metrics):
        app.include_router(module.router)
    install_openapi(app)
    return app
