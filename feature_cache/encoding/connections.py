"""Connections of urllib3 that go to the very address that was checked, and end at a deadline.

A name is resolved once, when the connection is made, so that it cannot point elsewhere between check and use. Host
header, TLS server name and certificate stay those of the name. Proxies of the environment are not used: behind one,
addresses could not be checked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import TypeAlias

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util.connection import create_connection

from feature_cache.encoding.addresses import AllowedHosts

HEADER_SECONDS = 40.0
"""For the answer's status and headers, which may come byte by byte."""
MAX_ADDRESSES = 4
"""Of a host that are tried."""

Connection: TypeAlias = HTTPConnection | HTTPSConnection


def pool_manager(allowed: AllowedHosts, **options: object) -> PoolManager:
    """A pool manager for http and https that connects to allowed addresses only."""

    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, allowed)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
            with _deadline(self.sock):
                return super().getresponse()

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, allowed)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
            with _deadline(self.sock):
                return super().getresponse()

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    manager = PoolManager(**options)  # type: ignore[arg-type]  # its options have many types
    manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
    return manager


def _connect(connection: Connection, allowed: AllowedHosts) -> socket.socket:
    """Raises PictureError for an address that is not allowed, NewConnectionError if none answers."""
    assert connection.port is not None
    errors = []
    for address in allowed.resolve(connection.host, connection.port)[:MAX_ADDRESSES]:
        try:
            return create_connection(
                (address, connection.port), connection.timeout, socket_options=connection.socket_options
            )
        except OSError as error:
            errors.append(error)
    raise NewConnectionError(connection, f"cannot connect ({errors[0] if errors else 'no address'})")


@contextlib.contextmanager
def _deadline(sock: socket.socket | None) -> Iterator[None]:
    """Shuts the socket down when the time is over, which ends a read that is waiting."""
    if sock is None:
        yield
        return
    timer = threading.Timer(HEADER_SECONDS, _shut, (sock,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own would wait for the other side
