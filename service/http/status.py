"""The content of GET /status, and its form for terminals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.http.app_state import AppState
from service.observability.recent import Window
from service.schemas.status import DomainStatus, LaneStatus, RouteStatus, StatusAnswer, VersionStatus
from service.versions.domains import Serving

LATENCY = "vip5_e2e_request_latency_seconds"
OWN_ROUTES = frozenset({"/status", "/metrics", "/health/live", "/health/ready"})
"""Asked by machines all the time; they would hide the others."""


def status_of(state: AppState, may_see: Callable[[str], bool]) -> StatusAnswer:
    """The state of the process; of the domains, only those that the caller may see."""
    window = state.recent.window()
    hide = state.private_paths.hide
    broken, not_ready = state.liveness.reasons(), state.readiness.reasons()
    served = state.running_service.domains.items() if state.running_service else ()
    return StatusAnswer(
        status="not_live" if broken else "not_ready" if not_ready else "ready",
        reasons=[hide(reason) for reason in (*broken, *not_ready)],
        faults=[hide(fault) for fault in state.readiness.degraded()],
        window_s=round(window.duration_s, 1),
        domains=[_domain(name, serving) for name, serving in served if may_see(name)],
        engine=_engine(window),
        routes=_routes(window),
        degraded=_counts(window, "vip5_degraded_total", "kind"),
        num_rankings=round(window.gain("vip5_beam_exact_prefix_count")),
        mean_exact_prefix=_mean(window, "vip5_beam_exact_prefix"),
        redis=_redis(window),
        journal=_journal(window),
        task_failures={
            labels["task"]: round(value) for labels, value in window.totals("vip5_background_failures_total") if value
        },
    )


def status_text(status: StatusAnswer) -> str:
    """The status in lines of at most 100 characters or so, the most urgent first."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: StatusAnswer) -> Iterator[str]:
    yield status.status.upper().replace("_", " ")
    yield from (f"  because {reason}" for reason in status.reasons)
    yield from (f"  fault: {fault}" for fault in status.faults)
    yield ""
    for domain in status.domains:
        yield f"{domain.name}: {domain.num_active_items} items"
        for each in domain.versions:
            share = "" if each.share is None else f" for {each.share * 100:g}% of the users"
            yield f"  {each.role:<8} {each.version}, catalog revision {each.catalog_revision}{share}"
    engine = status.engine
    yield ""
    yield f"queue: {engine.num_waiting} waiting, {engine.num_running} running, wait p95 {_ms(engine.queue_p95_ms)}"
    yield "engine busy: " + ", ".join(f"{lane} {share:.0%}" for lane, share in engine.busy.items())
    yield f"redis: {status.redis}; journal: {status.journal}"
    yield from (f"background task {task}: {number} failures" for task, number in status.task_failures.items())
    yield ""
    yield f"in the last {status.window_s:.0f} s:"
    for route in status.routes:
        yield (
            f"  {route.route:<28} {route.num_requests:>6} requests, {route.num_errors} failed, {route.num_rejected} "
            f"rejected, p50 {_ms(route.p50_ms)}, p95 {_ms(route.p95_ms)}"
        )
    if status.mean_exact_prefix is not None:
        yield f"  exactness: {status.mean_exact_prefix:.1f} items proven in the mean of {status.num_rankings} rankings"
    yield "  degraded: " + (", ".join(f"{kind} {number}" for kind, number in status.degraded.items()) or "none")


def _ms(duration: float | None) -> str:
    return "none" if duration is None else f"{duration:.0f} ms"


def _domain(name: str, serving: Serving) -> DomainStatus:
    canary = serving.roles.canary
    stable = serving.stable
    versions = [
        VersionStatus(
            role=role,
            version=ref.version,
            bundle=ref.bundle_hash,
            catalog_revision=serving.versions[ref].catalog_revision,
            share=canary.share if role == "canary" and canary is not None else None,
        )
        for role, ref in serving.roles.assigned
        if ref in serving.versions
    ]
    num_active = 0 if stable is None else int(stable.domain.catalog.is_active.sum())
    return DomainStatus(name=name, num_active_items=num_active, versions=versions)


def _engine(window: Window) -> LaneStatus:
    duration_s = max(window.duration_s, 1e-9)
    return LaneStatus(
        num_waiting=round(window.value("vip5_num_requests_waiting")),
        num_running=round(window.value("vip5_num_requests_running")),
        busy={
            labels["lane"]: round(min(1.0, value / duration_s), 4)
            for labels, value in window.gained("vip5_engine_busy_seconds_total")
        },
        queue_p95_ms=_in_ms(window.quantile_s("vip5_request_queue_time_seconds", 0.95)),
    )


def _routes(window: Window) -> list[RouteStatus]:
    names = {labels["route"] for labels, value in window.gained("vip5_requests_total") if value} - OWN_ROUTES
    return [_route(window, name) for name in sorted(names)]


def _route(window: Window, name: str) -> RouteStatus:
    by_status: dict[str, float] = {}
    for labels, value in window.gained("vip5_requests_total"):
        if labels["route"] == name:
            by_status[labels["status"]] = by_status.get(labels["status"], 0.0) + value
    return RouteStatus(
        route=name,
        num_requests=round(sum(by_status.values())),
        num_rejected=round(by_status.get("429", 0.0)),
        num_errors=round(sum(value for status, value in by_status.items() if status >= "500")),
        p50_ms=_in_ms(window.quantile_s(LATENCY, 0.5, route=name)),
        p95_ms=_in_ms(window.quantile_s(LATENCY, 0.95, route=name)),
    )


def _in_ms(duration_s: float | None) -> float | None:
    return None if duration_s is None else round(duration_s * 1000, 1)


def _counts(window: Window, name: str, label: str) -> dict[str, int]:
    return {labels[label]: round(value) for labels, value in window.gained(name) if value}


def _mean(window: Window, name: str) -> float | None:
    count = window.gain(f"{name}_count")
    return round(window.gain(f"{name}_sum") / count, 2) if count else None


def _redis(window: Window) -> str:
    if not window.value("vip5_redis_configured"):
        return "not configured"
    return "up" if window.value("vip5_redis_up") else "down"


def _journal(window: Window) -> str:
    if window.value("vip5_journal_broken"):
        return "broken: changes are refused"
    unread = round(window.value("vip5_journal_unread_entries"))
    return f"{unread} entries are of a newer release and not served" if unread else "in order"
