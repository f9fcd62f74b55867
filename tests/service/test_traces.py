"""Sampled requests leave spans of their stages, and nothing private; others leave nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from model.planning.runtime import Runtime
from service.errors import TracesError
from service.http.app import create_app
from service.observability.tracing.open_telemetry import OpenTelemetryTraces
from service.observability.tracing.traces import NoTraces, open_traces
from service.settings.options import TraceOptions
from service.settings.settings import Settings
from tests.conftest import ROOT
from tests.service.conftest import client_of

ASK = {"domain": "toys", "history": ["item-1", "item-2"], "user_id": "u1", "user_name": "Ann Secret", "k": 3}
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"}
OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


class Recorded:
    """A client, and the spans that its requests left."""

    def __init__(self, client: httpx.AsyncClient, traces: OpenTelemetryTraces, exporter: InMemorySpanExporter) -> None:
        self.client = client
        self._traces = traces
        self._exporter = exporter

    async def ask(self, headers: dict[str, str], **changes: object) -> httpx.Response:
        return await self.client.post("/recommend/sequential", json=ASK | changes, headers=headers)

    def spans(self) -> dict[str, ReadableSpan]:
        self._traces.flush()
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
async def recorded(settings: Settings, runtime: Runtime) -> AsyncIterator[Recorded]:
    exporter = InMemorySpanExporter()
    traces = OpenTelemetryTraces(exporter, sample_ratio=0.0)
    async with client_of(create_app(settings, lambda _: runtime, traces), traces=traces) as client:
        yield Recorded(client, traces, exporter)


async def test_the_stages_of_a_request_are_spans_of_the_callers_trace(recorded: Recorded) -> None:
    await recorded.ask(SAMPLED)
    spans = recorded.spans()

    request = spans.pop("request")
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == SPAN_ID
    assert set(spans) == {"plan", "features", "queue", "encode", "decode"}
    for span in spans.values():
        assert span.parent == request.context
        assert f"{span.context.trace_id:032x}" == TRACE_ID


async def test_stages_follow_each_other_within_the_request(recorded: Recorded) -> None:
    await recorded.ask(SAMPLED)
    spans = recorded.spans()

    request = spans["request"]
    times = [request.start_time]
    for name in ("plan", "features", "queue", "encode", "decode"):
        times += [spans[name].start_time, spans[name].end_time]
    times.append(request.end_time)
    known = [time for time in times if time is not None]
    assert len(known) == len(times)
    # The clock of days and the clock of durations do not tick alike, so a stage may begin a trifle early.
    assert all(after >= before - 1_000_000 for before, after in pairwise(known))


async def test_spans_say_how_a_request_ended_and_nothing_private(recorded: Recorded) -> None:
    await recorded.ask(SAMPLED | {"X-Request-ID": "u1"})
    request = recorded.spans()["request"]

    assert dict(request.attributes or {}) == {
        "http.route": "/recommend/sequential",
        "http.response.status_code": 200,
        "vip5.domain": "toys",
        "vip5.degraded": ("untrained_model",),
        "vip5.num_items": 3,
    }


async def test_a_refused_request_is_traced_with_its_error(recorded: Recorded) -> None:
    await recorded.ask(SAMPLED, domain="nowhere")
    attributes = dict(recorded.spans()["request"].attributes or {})

    assert attributes["http.response.status_code"] == 404
    assert attributes["error.type"] == "unknown_domain"


@pytest.mark.parametrize("headers", [NOT_SAMPLED, {}, {"traceparent": "nonsense"}])
async def test_what_is_not_sampled_leaves_no_span_and_no_exemplar(recorded: Recorded, headers: dict[str, str]) -> None:
    assert (await recorded.ask(headers)).status_code == 200
    assert recorded.spans() == {}
    assert "trace_id" not in (await recorded.client.get("/metrics", headers=OPEN_METRICS)).text


async def test_probes_and_scrapes_are_not_traced(recorded: Recorded) -> None:
    await recorded.client.get("/health/ready", headers=SAMPLED)
    await recorded.client.get("/metrics", headers=SAMPLED)

    assert recorded.spans() == {}


async def test_the_trace_is_the_exemplar_of_the_latency_for_who_asks_for_open_metrics(recorded: Recorded) -> None:
    await recorded.ask(SAMPLED)
    plain = await recorded.client.get("/metrics")
    rich = await recorded.client.get("/metrics", headers=OPEN_METRICS)

    assert plain.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in plain.text
    assert rich.headers["content-type"].startswith("application/openmetrics-text")
    assert rich.text.endswith("# EOF\n")
    (line,) = [line for line in rich.text.splitlines() if "trace_id" in line]
    assert line.startswith('vip5_e2e_request_latency_seconds_bucket{domain="toys"')
    assert f'# {{trace_id="{TRACE_ID}"}}' in line


def test_traces_are_off_unless_an_endpoint_is_set() -> None:
    assert isinstance(open_traces(TraceOptions(endpoint=None, sample_ratio=1.0)), NoTraces)


def test_the_start_stops_where_traces_are_wanted_and_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.observability.tracing.open_telemetry")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(
        TracesError, match=r"VIP5_TRACES_ENDPOINT is set, .* pip install 'vip5-serve\[otel\]', or unset"
    ):
        open_traces(TraceOptions(endpoint="http://localhost:4318/v1/traces", sample_ratio=1.0))


def test_the_service_imports_no_tracer_unless_traces_are_on() -> None:
    """Redis' client imports the SDK's metrics by itself where they are installed."""
    tracers = {"opentelemetry.sdk.trace", "opentelemetry.exporter", "service.observability.tracing.open_telemetry"}
    code = f"import sys, service.http.server; print(sorted({tracers} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"
