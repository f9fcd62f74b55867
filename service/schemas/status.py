"""Answer of GET /status."""

from __future__ import annotations

from pydantic import Field

from service.schemas.base import AnswerBody


class VersionStatus(AnswerBody):
    """A loaded version of a domain."""

    role: str = Field(description="`stable`, `canary`, `shadow`, `previous` or `loaded`.")
    version: str = Field(description="The version's short name.")
    bundle: str = Field(description="Hash of its bundle.")
    catalog_revision: int = Field(description="Number of changes made to the catalog since it was loaded.")
    share: float | None = Field(description="Share of the users that a canary answers.")


class DomainStatus(AnswerBody):
    """A served domain."""

    name: str = Field(description="The domain's name.")
    num_active_items: int = Field(description="Items that may be recommended.")
    versions: list[VersionStatus] = Field(description="Its loaded versions.")


class RouteStatus(AnswerBody):
    """The recent requests of one route."""

    route: str = Field(description="The route.")
    num_requests: int = Field(description="All requests.")
    num_rejected: int = Field(description="Of these, rejected for load or rate (429).")
    num_errors: int = Field(description="Of these, failed in the service (500 and above).")
    p50_ms: float | None = Field(description="Median latency, interpolated between the histogram's bounds.")
    p95_ms: float | None = Field(description="95th percentile of the latency, likewise.")


class LaneStatus(AnswerBody):
    """The queue and the engine."""

    num_waiting: int = Field(description="Requests waiting now.")
    num_running: int = Field(description="Requests in the engine now.")
    busy: dict[str, float] = Field(description="Recent share of the time that the engine was busy, by lane.")
    queue_p95_ms: float | None = Field(description="95th percentile of the recent waits.")


class StatusAnswer(AnswerBody):
    """What somebody on call needs first. All that is recent is of the last `window_s` seconds, workers included."""

    status: str = Field(description="`ready`, `not_ready` or `not_live`.")
    reasons: list[str] = Field(description="Why it is not ready or not live.")
    faults: list[str] = Field(description="Faults that degrade answers, background tasks that are down included.")
    window_s: float = Field(description="Seconds that recent figures are of.")
    domains: list[DomainStatus] = Field(description="The domains that the key may see, by name.")
    engine: LaneStatus = Field(description="Queue and engine.")
    routes: list[RouteStatus] = Field(description="Recent requests, by route.")
    degraded: dict[str, int] = Field(description="Recent degraded answers, by kind.")
    num_rankings: int = Field(description="Recent searches of recommendations.")
    mean_exact_prefix: float | None = Field(description="Mean number of their leading items that were proven.")
    redis: str = Field(description="`up`, `down` or `not configured`.")
    journal: str = Field(description="`in order`, or what is wrong with the journal of changes.")
    task_failures: dict[str, int] = Field(description="Failures of background tasks since the start, by task.")
