"""Exports the spans of requests to an OpenTelemetry collector, if one is configured."""

from __future__ import annotations

from typing import Protocol

from service.errors import TracesError
from service.observability.trace import RequestTrace
from service.settings.options import TraceOptions


class Traces(Protocol):
    """Exports the traces of completed requests."""

    def record(self, trace: RequestTrace, status: int, ended_ns: int, /) -> str | None:
        """The trace's id if it is sampled. `ended_ns` is a time of time.time_ns."""

    def close(self) -> None:
        """Send pending spans; may block for a few seconds."""


class NoTraces:
    """Disabled traces."""

    def record(self, _trace: RequestTrace, _status: int, _ended_ns: int, /) -> str | None:
        return None

    def close(self) -> None:
        pass


def open_traces(options: TraceOptions) -> Traces:
    """Raises TracesError if traces are enabled and OpenTelemetry is not installed."""
    if options.endpoint is None:
        return NoTraces()
    try:
        from service.observability.tracing.open_telemetry import OpenTelemetryTraces  # noqa: PLC0415 - an optional dependency
    except ModuleNotFoundError as error:
        raise TracesError(
            f"VIP5_TRACES_ENDPOINT is set, but {error.name} is not installed: pip install 'vip5-serve[otel]',"
            " or unset VIP5_TRACES_ENDPOINT"
        ) from error
    return OpenTelemetryTraces.to(options.endpoint, options.sample_ratio)
