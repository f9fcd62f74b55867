"""The outermost middleware: request ids, and one log line and metrics per request."""

from __future__ import annotations

import logging
import os
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ClientDisconnectedError
from service.http.cross_origin import CrossOrigin
from service.http.problems import problem_response
from service.observability.json_logging import log_request
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.observability.tracing.traces import Traces
from service.problem_documents import STATUSES, code_of, problem_of

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_REQUEST_ID = b"x-request-id"
MAX_REQUEST_ID_LENGTH = 128
DISCONNECTED = STATUSES[ClientDisconnectedError].status  # no response: the client left, or draining timed out


class RequestContext:
    """ASGI middleware that puts a RequestTrace into the request's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces, cross_origin: CrossOrigin) -> None:
        self._app = app
        self._cross_origin = cross_origin
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = traceparent = None
        for name, value in reversed(scope["headers"]):  # the first one of each counts
            if name == _REQUEST_ID:
                given = value.decode("latin-1")
            elif name == b"traceparent":
                traceparent = value.decode("latin-1")
        trace = RequestTrace(request_id_of(given), traceparent=traceparent)
        scope.setdefault("state", {})["trace"] = trace
        started_at = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (_REQUEST_ID, trace.request_id.encode("latin-1"))]
                trace.begin_answer()
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            logger.exception("request_failed", extra={"request_id": trace.request_id})
            trace.error_code = code_of(error)
            if status:  # part of the response is sent: only closing the connection is left
                raise
            answer = self._cross_origin.wrap(problem_response(problem_of(error, trace.request_id)))
            await answer(scope, receive, send_with_id)
        finally:
            trace.end()
            trace.route = getattr(scope.get("route"), "path", trace.route)
            duration_s = time.perf_counter() - started_at
            trace.trace_id = self._traces.record(trace, status or DISCONNECTED, time.time_ns())
            self._metrics.observe_request(trace.route, trace.domain, status or DISCONNECTED, duration_s, trace.trace_id)
            log_request(trace, status or DISCONNECTED, duration_s)


def request_id_of(given: str | None) -> str:
    """The client's id if it is short and printable ASCII, else a new one."""
    if given and len(given) <= MAX_REQUEST_ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return _new_ids.pop() if _new_ids else _drawn_id()


_new_ids: list[str] = []
IDS_DRAWN = 256
"""Request ids that are drawn at once: asking the system for random bytes gives up the GIL."""


def _drawn_id() -> str:
    content = os.urandom(16 * IDS_DRAWN)
    _new_ids.extend(uuid.UUID(bytes=content[at : at + 16], version=4).hex for at in range(0, len(content), 16))
    return _new_ids.pop()
