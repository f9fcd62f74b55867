"""One connection: limits on time and size, refusals, and clients that end or stop reading early, which uvicorn lacks.

uvicorn limits the time between requests only. Here a request's headers must be complete within `receive_s`, the whole
request within twice that, and an answer must be read within `send_s`. service/http/json_body.py limits bodies.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.errors import (
    ClientDisconnectedError,
    HeadTimeoutError,
    HeadTooLargeError,
    MalformedRequestError,
    ServiceError,
)
from service.http.cross_origin import CrossOrigin
from service.http.incoming import EXTENSION, Incoming
from service.http.joined_writes import JoinedWrites
from service.http.message_parser import MessageParser
from service.http.refusals import as_bytes, refusal
from service.observability.metrics import Metrics
from service.settings.options import ConnectionLimits

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
LINGER_S = 1.0
"""How long the rest of a refused request is discarded: closing at once would discard the refusal itself."""
PROBE_S = 0.5
"""Interval at which a client that has ended its side is asked whether it is still there."""
CLOSE = (b"connection", b"close")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HTTP2_METHOD = b"PRI"
"""What an HTTP/2 connection begins with, if the client does not ask whether the server speaks it (RFC 9113, 3.4)."""
HTTP_1_1_ONLY = "the service speaks HTTP/1.1; turn off HTTP/2 with prior knowledge in the client or proxy"
GO_AWAY = (
    bytes.fromhex("000000 04 00 00000000")  # empty settings, which come first
    + (8 + len(HTTP_1_1_ONLY)).to_bytes(3)
    + bytes.fromhex("07 00 00000000 00000000 0000000d")  # GOAWAY, HTTP_1_1_REQUIRED
    + HTTP_1_1_ONLY.encode()
)
"""A refusal that clients of HTTP/2 understand (RFC 9113, 6.8)."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection; `protocol_class` sets the limits and the metrics."""

    limits: ConnectionLimits
    metrics: Metrics
    cross_origin: CrossOrigin

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = MessageParser(self)  # type: ignore[assignment]  # has those of its methods that are called
        self._served_app: ASGIApp = config.loaded_app
        self._open: deque[Incoming] = deque()
        self._body = Incoming(is_complete=True)
        self._fault: ServiceError | None = None
        self._head_fault: ServiceError | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._limit_s: float | None = None
        self._is_parsing = False
        self._stall: asyncio.TimerHandle | None = None
        self._probe: asyncio.TimerHandle | None = None
        self._is_head_open = False
        self._is_ended = False
        self._is_http2 = False
        self._refused_headers: list[tuple[bytes, bytes]] = []
        self._num_open_bytes = 0
        self._num_head_bytes = 0
        self._began_at = 0.0
        self._connected_at = self.loop.time()

    @property
    def _is_idle(self) -> bool:
        return not self._open

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(JoinedWrites(transport))
        self._began_at = time.perf_counter()
        self._start_timer(self.limits.receive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._stall, self._probe):
            if timer is not None:
                timer.cancel()
        for each in self._open:  # uvicorn tells the last of several pipelined requests only
            each.note_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._fault is not None:
            return  # where the next request would begin is unknown
        self._unset_keepalive_if_required()
        self._is_parsing = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._is_http2 = self._is_head_open and self.parser.get_method() == HTTP2_METHOD
            self._reject(self._head_fault or (_speaks_http2() if self._is_http2 else _malformed(error)))
            return
        finally:
            self._is_parsing = False
        if self._limit_s is not None:
            self._start_timer(self._limit_s)
        if self._is_head_open:  # the parser reports complete headers only
            self._num_open_bytes += len(data)
            if self._num_open_bytes > MAX_HEAD_BYTES:
                self._reject(_too_large())
        elif self._deadline is None and self._is_idle and self.timeout_keep_alive_task is None:
            self._start_timer(self.limits.receive_s)  # blank lines, which start no request

    # Parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head_open = True
        self._num_open_bytes = self._num_head_bytes = 0
        self._began_at = time.perf_counter()
        self._start_timer(self.limits.receive_s)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._require_small(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._require_small(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self.parser.get_method() == b"CONNECT":
            self._head_fault = MalformedRequestError("CONNECT asks for a tunnel; the service is not a proxy")
            raise self._head_fault
        self._require_path()
        self._require_host()
        self._is_head_open = False
        self._body = Incoming()
        self.app = functools.partial(self._answer, self._body)
        self._start_timer(2 * self.limits.receive_s)
        super().on_headers_complete()
        self._body.begin(self.cycle)
        self._open.append(self._body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._body.is_complete = True
        super().on_message_complete()

    def _require_path(self) -> None:
        """Give a URL without a path, as `http://shop`, the root's (RFC 9112, 3.2.1)."""
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError as error:
            self._head_fault = MalformedRequestError("the request's target is not a valid URL; send a path")
            raise self._head_fault from error
        if not url.path:
            self.url = b"/?" + url.query if url.query else b"/"

    def _require_host(self) -> None:
        """HTTP/1.1 requires the Host header, and that requests without one are refused (RFC 9112, 3.2)."""
        if self.parser.get_http_version() != "1.0" and not any(name == b"host" for name, _ in self.headers):
            self._head_fault = MalformedRequestError(
                "the request has no Host header, which HTTP/1.1 requires; send one"
            )
            raise self._head_fault

    def _require_small(self, num_bytes: int) -> None:
        self._num_head_bytes += num_bytes
        if self._num_head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._head_fault = _too_large()
            raise self._head_fault  # stops the parser, which reports another error

    # Answers

    async def _answer(self, body: Incoming, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, for which a fault in the body is an error of reading it."""

        async def receive_or_raise() -> Message:
            message = await receive()
            if body.fault is not None:
                raise body.fault
            return message

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
            await send(message)

        if body.fault is None:
            scope["extensions"] = {EXTENSION: body}
            is_old = self.loop.time() - self._connected_at >= self.limits.max_age_s
            await self._served_app(scope, receive_or_raise, send_last if is_old else send)
        else:
            headers = self._cross_origin_headers(scope["path"], scope["headers"])
            await refusal(body.fault, scope["headers"], headers, self.metrics, 0.0)(scope, receive, send)

    def on_response_complete(self) -> None:
        self._open.popleft()
        super().on_response_complete()  # starts the next of the pipelined requests
        if self.transport.is_closing():
            self._expect_end()
        elif self._is_idle and self._fault is not None:
            self._refuse(self._fault)
        elif self._is_idle and self._probe is not None:
            self._close()

    # Clients that end early

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's own always closes
        """Keep the connection for the answers that are due: the client sends no more, but may still read."""
        if self._is_ended or self._is_idle:
            return None
        if self._is_head_open:
            self._is_head_open = False
            self._stop_timer()
        elif not self._body.is_complete and self._fault is None:
            self._reject(ClientDisconnectedError("the client ended its side before its request was complete"))
        if self._probe is None:
            self._probe = self.loop.call_later(PROBE_S, self._ask_for_presence)
        return True

    def _ask_for_presence(self) -> None:
        """Write what clients must ignore (RFC 9110, 15.2): a client that is gone answers it with a reset.

        The end of its side says only that it sends no more. Work for a client that is gone is cancelled.
        """
        running = self._open[0].cycle if self._open else None
        if running is not None and not running.response_started and running.scope["http_version"] == "1.1":
            self.transport.write(CONTINUE)
        self._probe = self.loop.call_later(PROBE_S, self._ask_for_presence)

    # Clients that do not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_end()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None and not self.transport.is_closing():
            self._stall.cancel()
            self._stall = None

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._expect_end()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self._expect_end()

    def _expect_end(self) -> None:
        """Abort the connection unless the client reads what is written, or it is closed, within the limit."""
        if self._stall is None:
            self._stall = self.loop.call_later(self.limits.send_s, self._abort)

    def _abort(self) -> None:
        logger.info("answer_not_read", extra={"limit_s": self.limits.send_s, "num_requests": len(self._open)})
        self.transport.abort()

    # Refusals

    def _start_timer(self, within_s: float) -> None:
        """Requests that come whole need none: inside of the parser it is only noted."""
        self._stop_timer()
        if self._is_parsing:
            self._limit_s = within_s
            return
        self._deadline = self.loop.call_later(within_s, self._time_out)

    def _stop_timer(self) -> None:
        self._limit_s = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        if self.flow.read_paused:  # the server paused reading, so the client is not slow
            self._start_timer(self.limits.receive_s)
        elif self._is_head_open:
            self._reject(
                HeadTimeoutError(f"the headers were not complete within {self.limits.receive_s} s; send them faster")
            )
        else:
            self._close()

    def _reject(self, error: ServiceError) -> None:
        """Refuse a request after the answers to those before it, then close: the start of the next one is unknown."""
        self._fault = error
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self._is_head_open or self._body.is_complete:
            self._refused_headers = self.headers if self._is_head_open else []
            self._is_head_open = False
            if self._is_idle:
                self._refuse(error)
        elif self._is_idle:  # it was answered without its body
            self._end()
        else:
            self._body.fault = error
            self.cycle.keep_alive = False
            self.cycle.message_event.set()

    def _refuse(self, error: ServiceError) -> None:
        duration_s = time.perf_counter() - self._began_at
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")
        headers = self._cross_origin_headers(path, self._refused_headers)
        response = refusal(error, self._refused_headers, headers, self.metrics, duration_s)
        self.transport.write(GO_AWAY if self._is_http2 else as_bytes(response, error))
        self._end()

    def _end(self) -> None:
        """Send no more, and close once the client has read what was sent."""
        self._is_ended = True
        self._unset_keepalive_if_required()
        if self._probe is None and self.transport.can_write_eof():
            self.transport.write_eof()
            self._deadline = self.loop.call_later(LINGER_S, self._close)
        else:
            self._close()

    def _cross_origin_headers(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """For a request of these headers, as far as they have come."""
        origin = dict(headers).get(b"origin")
        return self.cross_origin.headers(path, None if origin is None else origin.decode("latin-1"))


def protocol_class(limits: ConnectionLimits, metrics: Metrics, cross_origin: CrossOrigin) -> type[BoundedProtocol]:
    """The protocol with its limits and CORS, as uvicorn takes it."""
    return type("Protocol", (BoundedProtocol,), {"limits": limits, "metrics": metrics, "cross_origin": cross_origin})


def _malformed(error: httptools.HttpParserError) -> MalformedRequestError:
    return MalformedRequestError(f"{error}; send valid HTTP/1.1")


def _speaks_http2() -> MalformedRequestError:
    return MalformedRequestError(HTTP_1_1_ONLY)


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"the headers exceed {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} fields; send fewer")
