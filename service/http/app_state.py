"""The state that the app shares with its routes and its server: one typed object in `app.state`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from service.answering.parts import Service
from service.answering.readiness import Readiness
from service.http.admin_tokens import AdminTokens
from service.http.api_keys import ApiKeys
from service.http.body_budget import BodyBudget
from service.http.cross_origin import CrossOrigin
from service.http.pictures import PictureFolders
from service.http.private_paths import PrivatePaths
from service.observability.audit import AuditLog
from service.observability.liveness import Liveness
from service.observability.metrics import Metrics
from service.observability.recent import Recent
from service.settings.settings import Settings
from service.versions.followers import Followers, NoFollowers

if TYPE_CHECKING:
    from service.http.rate_limits import Quotas, RateLimits, SharedCounts


@dataclass(eq=False)
class AppState:
    """Created by create_app; `service` is available while the app's lifespan runs."""

    settings: Settings
    metrics: Metrics
    readiness: Readiness
    liveness: Liveness
    api_keys: ApiKeys | None
    rate_limits: RateLimits | None
    quotas: Quotas
    admin_tokens: AdminTokens | None
    audit: AuditLog | None
    body_budget: BodyBudget
    max_body_bytes: int
    receive_s: float
    default_deadline_s: float
    cross_origin: CrossOrigin
    private_paths: PrivatePaths
    picture_folders: PictureFolders
    recent: Recent
    example_requests: Path
    """Requests to try, whose customers the page offers."""
    admin_app: FastAPI | None = None
    """Serves /admin and /metrics on a separate port, if one is set."""
    process_problems: Callable[[], Sequence[str]] = tuple
    """Problems of the process that runs the app: its log, its file descriptors."""
    followers: Followers = field(default_factory=NoFollowers)
    """Processes that show what this one serves; set before the service is opened."""
    holds_all: bool = True
    """Whether all domains are served from the start; set before the service is opened."""
    shared_counts: SharedCounts | None = None
    """Of a worker: what is counted in the engine process, in place of `rate_limits` and `quotas`."""
    running_service: Service | None = None

    @property
    def service(self) -> Service:
        assert self.running_service is not None, "requests are routed only while the app's lifespan runs"
        return self.running_service


def set_state(app: FastAPI, state: AppState) -> None:
    app.state.app_state = state


def state_of(app: FastAPI) -> AppState:
    state = app.state.app_state
    assert isinstance(state, AppState)
    return state
