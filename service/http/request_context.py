"""The outermost middleware: request ids, and one log line and metrics per request."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable

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
        answer = _Answer(trace, scope, send, self._record)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            logger.exception("request_failed", extra={"request_id": trace.request_id})
            trace.error_code = code_of(error)
            if answer.status:  # part of the response is sent: only closing the connection is left
                raise
            problem = self._cross_origin.wrap(problem_response(problem_of(error, trace.request_id)))
            await problem(scope, receive, answer.send)
        finally:
            trace.end()
            answer.record()

    def _record(self, trace: RequestTrace, status: int, duration_s: float) -> None:
        trace.trace_id = self._traces.record(trace, status, time.time_ns())
        self._metrics.observe_request(trace.route, trace.domain, status, duration_s, trace.trace_id)
        log_request(trace, status, duration_s)


class _Answer:
    """What is sent for a request. It is recorded before its end is sent.

    So what a client has got is counted, even if this process is killed right after it.
    """

    __slots__ = ("_is_recorded", "_record", "_scope", "_send", "_started_at", "_trace", "status")

    def __init__(
        self, trace: RequestTrace, scope: Scope, send: Send, record: Callable[[RequestTrace, int, float], None]
    ) -> None:
        """`record` takes the status and the duration in seconds."""
        self.status = 0
        self._trace, self._scope, self._send, self._record = trace, scope, send, record
        self._started_at = time.perf_counter()
        self._is_recorded = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (_REQUEST_ID, self._trace.request_id.encode("latin-1"))]
            self._trace.begin_answer()
        elif not message.get("more_body"):
            self.record()
        await self._send(message)

    def record(self) -> None:
        """Idempotent."""
        if not self._is_recorded:
            self._is_recorded = True
            self._trace.route = getattr(self._scope.get("route"), "path", self._trace.route)
            self._record(self._trace, self.status or DISCONNECTED, time.perf_counter() - self._started_at)


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
