"""Limits on the time and size of request heads, which uvicorn lacks.

uvicorn limits the time between requests only. Here a request's headers must be complete within `receive_s`, and the
whole request within twice that. service/http/json_body.py limits bodies, and answers with a problem document.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import HeadTimeoutError, HeadTooLargeError, MalformedRequestError, ServiceError, problem_of
from service.http.cross_origin import CrossOrigin
from service.http.problems import problem_response
from service.http.request_context import request_id_of

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100


class BoundedProtocol(HttpToolsProtocol):
    """One connection; rejects requests with slow, large or too many headers."""

    receive_s: float
    cross_origin: CrossOrigin

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_head_open = False
        self._is_too_large = False
        self._num_open_bytes = 0
        self._num_head_bytes = 0

    @property
    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._start_timer(self.receive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_head_open:  # the parser reports complete headers only
            self._num_open_bytes += len(data)
            if self._num_open_bytes > MAX_HEAD_BYTES:
                self._reject(_too_large())
        elif self._deadline is None and self._is_idle and self.timeout_keep_alive_task is None:
            self._start_timer(self.receive_s)  # blank lines, which start no request

    # Parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head_open = True
        self._num_open_bytes = self._num_head_bytes = 0
        self._start_timer(self.receive_s)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._require_small(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._require_small(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._is_head_open = False
        self._start_timer(2 * self.receive_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()

    def _require_small(self, num_bytes: int) -> None:
        self._num_head_bytes += num_bytes
        if self._num_head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._is_too_large = True
            raise _too_large()  # stops the parser; uvicorn then calls `send_400_response`

    # Rejection

    def send_400_response(self, msg: str) -> None:
        """Answer with a problem document where uvicorn would send plain text."""
        self._reject(_too_large() if self._is_too_large else MalformedRequestError(f"{msg} Send valid HTTP/1.1."))

    def _start_timer(self, within_s: float) -> None:
        self._stop_timer()
        self._deadline = self.loop.call_later(within_s, self._time_out)

    def _stop_timer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        if self.flow.read_paused:  # the server paused reading, so the client is not slow
            self._start_timer(self.receive_s)
        elif self._is_head_open:
            self._reject(HeadTimeoutError(f"the headers were not complete within {self.receive_s} s; send them faster"))
        else:
            self.transport.close()

    def _reject(self, error: ServiceError) -> None:
        """Send a problem document and close the connection: the start of the next request is unknown."""
        self._is_head_open = False
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self._is_idle or not (self.cycle.response_started or self.pipeline):  # no other response is in progress
            headers = {"Connection": "close"} | self._cross_origin_headers()
            response = problem_response(problem_of(error, request_id_of(None)), headers)
            lines = [f"HTTP/1.1 {response.status_code} {problem_of(error, '').title}".encode()]
            lines += [name + b": " + value for name, value in response.raw_headers]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()

    def _cross_origin_headers(self) -> dict[str, str]:
        """For the request whose head is being read, as far as it has come."""
        origin = dict(self.headers or ()).get(b"origin")
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")
        return self.cross_origin.headers(path, None if origin is None else origin.decode("latin-1"))


def bounded(receive_s: float, cross_origin: CrossOrigin) -> type[BoundedProtocol]:
    """The protocol class with its time limit and CORS, as uvicorn takes it."""
    return type("Protocol", (BoundedProtocol,), {"receive_s": receive_s, "cross_origin": cross_origin})


def _too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"the headers exceed {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} fields; send fewer")
