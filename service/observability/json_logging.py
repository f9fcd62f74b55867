"""Logs as JSON lines on standard output. They never contain histories, names or keys."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from service.observability.trace import RequestTrace

logger = logging.getLogger(__name__)

QUIET_ROUTES = (
    "/metrics",
    "/health/live",
    "/health/ready",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}/ready",
)


def configure_logging(level: str) -> None:
    """Configure the root logger; called once per process."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(
            "{message}{levelname}{name}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            timestamp="time",
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def log_request(trace: RequestTrace, status: int, duration_s: float) -> None:
    """Log a request in one line; probes and scrapes at level debug."""
    fields = {
        "request_id": trace.request_id,
        "trace_id": trace.trace_id,
        "key_id": trace.client or None,
        "route": trace.route,
        "domain": trace.domain,
        "status": status,
        "duration_ms": round(duration_s * 1000, 3),
        "stages_ms": trace.stages_ms,
        "num_items": trace.num_items,
        "degraded": list(trace.degraded),
        "error": trace.error_code,
    }
    is_quiet = trace.route in QUIET_ROUTES
    logger.log(logging.DEBUG if is_quiet else logging.INFO, "request", extra=fields)
