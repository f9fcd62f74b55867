"""Exports spans with OpenTelemetry's SDK. A request's spans are created at its end, from the recorded times.

Attributes never contain users, items or histories, nor the client's request id, which may identify a user.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.observability.json_logging import QUIET_ROUTES
from service.observability.trace import RequestTrace

EXPORT_TIMEOUT_S = 5.0


class OpenTelemetryTraces:
    """Sends the spans of sampled requests in the background; the caller's sampling decision takes precedence."""

    def __init__(self, exporter: SpanExporter, sample_ratio: float) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create({"service.name": "vip5-serve"}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("vip5-serve")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str, sample_ratio: float) -> OpenTelemetryTraces:
        """`endpoint` accepts OTLP over HTTP, such as http://localhost:4318/v1/traces."""
        return cls(OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S), sample_ratio)

    def record(self, trace: RequestTrace, status: int, ended_ns: int, /) -> str | None:
        if trace.route in QUIET_ROUTES:
            return None
        caller = self._propagator.extract({"traceparent": trace.traceparent}) if trace.traceparent else None
        request = self._tracer.start_span(
            "request", caller, SpanKind.SERVER, _attributes(trace, status), start_time=trace.started_ns
        )
        if not request.is_recording():
            return None
        inside = set_span_in_context(request)
        for span in trace.spans:
            self._tracer.start_span(span.name, inside, start_time=span.started_ns).end(span.ended_ns)
        if status >= 500:
            request.set_status(StatusCode.ERROR, trace.error_code)
        request.end(ended_ns)
        return format_trace_id(request.get_span_context().trace_id)

    def flush(self) -> None:
        """Send pending spans."""
        self._provider.force_flush()

    def close(self) -> None:
        self._provider.shutdown()


def _attributes(trace: RequestTrace, status: int) -> Mapping[str, str | int | tuple[str, ...]]:
    attributes: dict[str, str | int | tuple[str, ...]] = {
        "http.route": trace.route,
        "http.response.status_code": status,
        "vip5.domain": trace.domain,
        "vip5.degraded": trace.degraded,
    }
    if trace.num_items is not None:
        attributes["vip5.num_items"] = trace.num_items
    if trace.error_code is not None:
        attributes["error.type"] = trace.error_code
    return attributes
