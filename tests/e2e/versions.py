"""An exporter that tells of a canary and a shadow, with the service's own Metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from service.metrics import Metrics
from tests.redis_servers import HOST


@contextmanager
def versions_exporter() -> Iterator[str]:
    """Where it listens; whenever it is scraped, each version has answered once more."""
    metrics = Metrics()
    metrics.set_bundle("garments", "0123")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            metrics.observe_version("garments", "0123", "stable", 0.03)
            metrics.observe_version("garments", "4567", "canary", 0.02)
            metrics.observe_version("garments", "89ab", "shadow", 0.02)
            metrics.observe_shadow_overlap("garments", 0.8)
            exposition = metrics.render(self.headers.get("accept", ""))
            self.send_response(200)
            self.send_header("content-type", exposition.media_type)
            self.end_headers()
            self.wfile.write(exposition.content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
