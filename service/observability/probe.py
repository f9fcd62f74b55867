"""A container's health check: `python -m service.observability.probe` exits with 0 if the service is ready, else 1.

Replaces curl in the image, and imports only what starts fast. Of the settings it reads VIP5_HOST, VIP5_PORT and
VIP5_UNIX_SOCKET, so give the address as variables, not as options.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import closing

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "8000"
TIMEOUT_S = 2.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where all interfaces can be reached


def main() -> None:
    try:
        with closing(_connection(os.environ)) as connection:
            message = _ask(connection)
    except (OSError, ValueError, http.client.HTTPException) as error:
        message = f"{type(error).__name__}: {error}"
    sys.exit(message)


def _ask(connection: http.client.HTTPConnection) -> str | None:
    """Why the service is not ready; None if it is."""
    connection.request("GET", "/health/ready")
    response = connection.getresponse()
    content = response.read(1000).decode()
    return None if response.status == http.client.OK else f"{response.status} {content}"


def _connection(variables: Mapping[str, str]) -> http.client.HTTPConnection:
    given = {name.upper(): value for name, value in variables.items() if value}
    path = given.get("VIP5_UNIX_SOCKET")
    if path is not None:
        return _UnixConnection(path)
    host = given.get("VIP5_HOST", DEFAULT_HOST).removeprefix("[").removesuffix("]")
    port = given.get("VIP5_PORT", DEFAULT_PORT)
    if "://" in port:  # Kubernetes' variable about a Service `vip5`, which the service ignores, too
        port = DEFAULT_PORT
    return http.client.HTTPConnection(LOOPBACK.get(host, host), int(port), TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


if __name__ == "__main__":
    main()
