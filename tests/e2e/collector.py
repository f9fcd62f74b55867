"""A collector of OpenTelemetry's: takes spans by OTLP over HTTP and remembers them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.redis_servers import HOST
from tests.server_threads import serving_in_a_thread


@dataclass
class Collector:
    """Names of spans by the id of their trace."""

    endpoint: str
    traces: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces[span.trace_id.hex()].add(span.name)


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers["content-length"]))
            taking.take(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    taking = Collector(f"http://{HOST}:{server.server_port}/v1/traces")
    with serving_in_a_thread(server):
        yield taking
