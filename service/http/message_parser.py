"""Parses HTTP/1.1 with httptools, and reads requests that ask for another protocol as if they did not.

A server may ignore `Upgrade` (RFC 9110, 7.8). curl --http2 and Java's HttpClient send `Upgrade: h2c` with every first
request, body included. llhttp takes all that follows such headers for the other protocol, and httptools cannot change
that, so the body goes to a second parser that was given the same framing without the upgrade.
"""

from __future__ import annotations

from typing import Protocol

import httptools

FRAMING = (b"content-length", b"transfer-encoding")


class Callbacks(Protocol):
    """What receives the parsed parts, as httptools calls it."""

    headers: list[tuple[bytes, bytes]]
    """Those of the current request, with names in lower case."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class MessageParser:
    """Has those methods of httptools.HttpRequestParser that uvicorn calls."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._parser = _parser(_Complete(self, callbacks))
        self.is_replaying = False

    def feed_data(self, data: bytes) -> None:
        """Raises httptools.HttpParserError."""
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                self._skip_upgrade()
            else:
                return

    def get_method(self) -> bytes:
        return bytes(self._parser.get_method())

    def get_http_version(self) -> str:
        return str(self._parser.get_http_version())

    def should_keep_alive(self) -> bool:
        return bool(self._parser.should_keep_alive())

    def should_upgrade(self) -> bool:
        return False

    def complete(self) -> None:
        """Called at the end of a message, and where the parser stops at an upgrade before the body."""
        if not self._parser.should_upgrade():
            self._callbacks.on_message_complete()

    def _skip_upgrade(self) -> None:
        """Continue behind the headers of the current request with a parser that sees no upgrade in them."""
        framing = b"".join(b"%b: %b\r\n" % header for header in self._callbacks.headers if header[0] in FRAMING)
        version = self.get_http_version().encode()
        self._parser = _parser(_Replayed(self, self._callbacks))
        self.is_replaying = True
        self._parser.feed_data(b"POST / HTTP/%b\r\n%b\r\n" % (version, framing))
        self.is_replaying = False


class _Complete:
    """Callbacks with another end of the message; the others are called directly, which is as fast as without."""

    def __init__(self, parser: MessageParser, callbacks: Callbacks) -> None:
        self.on_message_begin = callbacks.on_message_begin
        self.on_url = callbacks.on_url
        self.on_header = callbacks.on_header
        self.on_headers_complete = callbacks.on_headers_complete
        self.on_body = callbacks.on_body
        self.on_message_complete = parser.complete


class _Replayed:
    """Callbacks that are not told of the replayed headers."""

    def __init__(self, parser: MessageParser, callbacks: Callbacks) -> None:
        self._parser = parser
        self._callbacks = callbacks
        self.on_body = callbacks.on_body
        self.on_message_complete = parser.complete

    def on_message_begin(self) -> None:
        if not self._parser.is_replaying:
            self._callbacks.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._parser.is_replaying:
            self._callbacks.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._parser.is_replaying:
            self._callbacks.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._parser.is_replaying:
            self._callbacks.on_headers_complete()


def _parser(callbacks: object) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(callbacks)
    # As uvicorn does: a request behind one with `Connection: close` does not prevent the answer to the first.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
