"""Wires the app: routes, middleware and lifespan, around whatever opens the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.answering.parts import Service
from service.answering.readiness import Readiness
from service.http.admin_tokens import AdminTokens
from service.http.api_keys import ApiKeys
from service.http.app_state import AppState, set_state
from service.http.body_budget import BodyBudget
from service.http.cross_origin import CrossOrigin
from service.http.docs_page import install_docs
from service.http.openapi import install_openapi, operation_id, problems
from service.http.pictures import PictureFolders
from service.http.plain_routes import name_plain_routes
from service.http.private_paths import PrivatePaths
from service.http.problems import install_problem_handlers
from service.http.proxies import Proxies
from service.http.quick_route import QuickRoute, needs_proxies
from service.http.rate_limits import Quotas, RateLimits
from service.http.request_context import RequestContext
from service.http.route_classes import SECURITY
from service.http.routes import (
    admin,
    admin_items,
    admin_replicas,
    domains,
    events,
    explain,
    health,
    histories,
    images,
    recommend,
    status,
)
from service.http.routes import metrics as metrics_routes
from service.http.routes.page import install_page
from service.observability.audit import AuditLog
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.observability.recent import Recent
from service.observability.tracing.traces import Traces, open_traces
from service.settings.options import ProxyOptions
from service.settings.settings import Settings
from service.versions.lag import LagLimit

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


Opener = Callable[[AppState], AbstractAsyncContextManager[Service]]
"""Opens the service for as long as the app runs, and keeps the state's readiness up to date."""


def build_app(
    settings: Settings, opener: Opener, traces: Traces | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The app. Its lifespan opens the service.

    `traces` default to those in the settings, and `metrics` to new ones. Raises TracesError and ApiKeysError.
    """
    state = _new_state(settings, metrics or Metrics())
    traces = traces or open_traces(settings.trace_options)
    proxies = settings.proxy_options
    app = _new_app(
        state,
        traces,
        state.cross_origin,
        proxies,
        has_quick_route=True,
        title="vip5-serve",
        summary="Multimodal generative recommendation",
        lifespan=_lifespan(state, opener, traces),
    )
    security, refusals = (SECURITY, problems(401, 403)) if state.api_keys else ([], {})
    # A picture's path is also that of an item.
    routers = (recommend.router, explain.router, images.router, domains.router, domains.items, domains.users)
    for router in (*routers, histories.router, events.router):
        app.include_router(router, dependencies=security, responses=refusals)
    app.include_router(health.router)
    if settings.admin_port is not None:
        state.admin_app = _new_app(state, traces, CrossOrigin(), proxies, title="vip5-serve: administration")
    admin_app = state.admin_app or app
    admin_app.include_router(metrics_routes.router)
    admin_app.include_router(status.router)
    if state.admin_tokens is not None:
        for router in (admin.router, admin_items.router, admin_replicas.router):
            admin_app.include_router(router)
    for each in {app, admin_app}:
        install_openapi(each)
        install_docs(each)
        install_page(each, is_shown=settings.has_page and each is app)
        name_plain_routes(each)
        _prepare_routes(each)
    return app


def _prepare_routes(app: FastAPI) -> None:
    """Make what FastAPI makes of an included router when it first looks for a path there: 60 to 140 ms for all.

    The event loop would answer nobody meanwhile.
    """
    for route in app.router.routes:
        route.matches({"type": "http", "method": "GET", "path": "/-", "root_path": "", "headers": []})


def _new_state(settings: Settings, metrics: Metrics) -> AppState:
    admin = settings.admin_options
    return AppState(
        settings=settings,
        metrics=metrics,
        readiness=Readiness(),
        liveness=Liveness(settings.stall_s),
        api_keys=None if settings.api_keys_file is None else ApiKeys(settings.api_keys_file),
        rate_limits=None if settings.rate_limit is None else RateLimits(settings.rate_limit),
        quotas=Quotas(),
        admin_tokens=AdminTokens(admin.token, admin.tokens_file) if admin.is_enabled else None,
        audit=None if settings.audit_log is None else AuditLog(settings.audit_log),
        body_budget=BodyBudget(settings.max_bodies_bytes),
        max_body_bytes=settings.request_limits.max_body_bytes,
        receive_s=settings.receive_s,
        default_deadline_s=settings.request_limits.default_deadline_s,
        cross_origin=CrossOrigin(settings.cors_origins),
        private_paths=PrivatePaths(settings.private_folders),
        picture_folders=PictureFolders(settings.images_root),
        recent=Recent(metrics),
        example_requests=settings.example_requests,
    )


def _lifespan(state: AppState, opener: Opener, traces: Traces) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with opener(state) as service:
            state.running_service = service
            readiness = state.readiness
            if service.changes is not None:
                progress, membership = service.changes.replica.progress, service.changes.membership
                readiness.lag = LagLimit(progress, membership, state.settings.max_lag_s).reasons
            others = [each for each in (state.api_keys, state.admin_tokens, state.audit) if each is not None]
            readiness.degraded = lambda: list(
                dict.fromkeys(  # workers have many problems in common with the engine process
                    (
                        *service.problems(),
                        *(text for each in others for text in each.problems),
                        *state.process_problems(),
                    )
                )
            )
            try:
                yield
            finally:
                readiness.drain()
                await asyncio.to_thread(traces.close)
                if state.audit is not None:
                    await asyncio.to_thread(state.audit.close)

    return lifespan


class _App(FastAPI):
    """FastAPI without the layers around RequestContext, which answers whatever fails below it."""

    def build_middleware_stack(self) -> ASGIApp:
        stack: Any = super().build_middleware_stack()
        while not isinstance(stack, RequestContext):
            stack = stack.app
        return stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def _new_app(
    state: AppState,
    traces: Traces,
    cross_origin: CrossOrigin,
    proxies: ProxyOptions,
    *,
    has_quick_route: bool = False,
    **options: Any,  # noqa: ANN401  # FastAPI's keyword arguments
) -> FastAPI:
    """An app without routes. Apps with the same state share one service, which the first app's lifespan opens."""
    app = _App(docs_url=None, redoc_url=None, generate_unique_id_function=operation_id, **options)
    set_state(app, state)
    cross_origin.install(app)  # innermost: it must see the path as routes do
    is_quick_inside = needs_proxies(state, proxies)
    if has_quick_route and is_quick_inside:
        app.add_middleware(QuickRoute, state=state)
    app.add_middleware(Proxies, options=proxies, cross_origin=cross_origin)
    if has_quick_route and not is_quick_inside:
        app.add_middleware(QuickRoute, state=state)
    app.add_middleware(RequestContext, metrics=state.metrics, traces=traces, cross_origin=cross_origin)
    install_problem_handlers(app, state.metrics, state.private_paths)
    return app
