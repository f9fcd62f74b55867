"""The outermost layer: gives each request an id, and notes how it ended in one log line and in the metrics."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import STATUSES, ClientGoneError, code_of, problem_of
from service.http.problems import problem_response
from service.observability.json_logging import log_request
from service.observability.metrics import Metrics
from service.observability.trace import RequestTrace
from service.observability.tracing.traces import Traces

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
LONGEST_REQUEST_ID = 128
GONE = STATUSES[ClientGoneError].status  # nothing was sent, for nobody was there or the time to drain was up


class RequestContext:
    """ASGI middleware that puts a RequestTrace into the request's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        trace = RequestTrace(request_id_of(headers.get(REQUEST_ID)), traceparent=headers.get("traceparent"))
        scope.setdefault("state", {})["trace"] = trace
        started_at = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = trace.request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            logger.exception("request_failed", extra={"request_id": trace.request_id})
            trace.error_code = code_of(error)
            if status:  # half an answer is out: all that is left is to cut the connection
                raise
            await problem_response(problem_of(error, trace.request_id))(scope, receive, send_with_id)
        finally:
            trace.end()
            trace.route = getattr(scope.get("route"), "path", trace.route)
            duration_s = time.perf_counter() - started_at
            trace.trace_id = self._traces.record(trace, status or GONE, time.time_ns())
            self._metrics.observe_request(trace.route, trace.domain, status or GONE, duration_s, trace.trace_id)
            log_request(trace, status or GONE, duration_s)


def request_id_of(given: str | None) -> str:
    """The client's own id where it is short and printable ASCII, else a new one."""
    if given and len(given) <= LONGEST_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return uuid.uuid4().hex
