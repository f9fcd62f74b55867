"""Connections that give way while file descriptors are short (descriptors.py)."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import TooManyConnectionsError
from service.http.connections import BoundedProtocol
from service.http.descriptors import Descriptors
from service.http.problems import problem_response
from service.http.request_context import RequestContext
from service.observability.json_logging import QUIET_ROUTES
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.observability.tracing.traces import NoTraces
from service.problem_documents import problem_of

SURPLUS_S = 1.0
"""Time for the request of a connection that is there for a probe."""
RETRY_AFTER_S = 5
PROBES = frozenset(route.encode() for route in QUIET_ROUTES)


class SheddingProtocol(BoundedProtocol):
    """One connection, which may be told to go."""

    descriptors: Descriptors
    refusal: ASGIApp
    prefix: bytes
    _is_surplus = False

    def close(self) -> None:
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._is_surplus = not self.descriptors.admit(self, transport.get_extra_info("socket").fileno())
        if self._is_surplus:
            self._start_timer(min(SURPLUS_S, self.limits.receive_s))

    def connection_lost(self, exc: Exception | None) -> None:
        self.descriptors.note_closed(self)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.descriptors.note_busy(self)
        if self._is_surplus:
            self._start_timer(min(SURPLUS_S, self.limits.receive_s))

    def on_headers_complete(self) -> None:
        path = self.url.partition(b"?")[0].removeprefix(self.prefix)
        is_refused = self._is_surplus and path not in PROBES
        self._served_app = self.refusal if is_refused else self.config.loaded_app
        super().on_headers_complete()
        if self._is_surplus and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_idle and not (self._is_head_open or self.transport.is_closing()):
            self.descriptors.note_idle(self)


def shedding(
    base: type[BoundedProtocol], descriptors: Descriptors, metrics: Metrics, root_path: str
) -> type[BoundedProtocol]:
    """A protocol class whose connections give way, as uvicorn takes it. `root_path` may precede a probe's path."""
    cross_origin = base.cross_origin

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        trace: RequestTrace = scope["state"]["trace"]
        error = TooManyConnectionsError(
            "the service has too few file descriptors for more connections; retry later, and reuse connections"
        )
        trace.error_code = error.code
        descriptors.note_refused()
        metrics.count_rejected(error.code)
        headers = {"Connection": "close", "Retry-After": str(RETRY_AFTER_S)}
        answer = problem_response(problem_of(error, trace.request_id), headers)
        await cross_origin.wrap(answer)(scope, receive, send)

    refusal = RequestContext(refuse, metrics, NoTraces(), cross_origin)
    members = {"descriptors": descriptors, "refusal": staticmethod(refusal), "prefix": root_path.encode()}
    return type("Protocol", (SheddingProtocol, base), members)
