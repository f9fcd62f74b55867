"""Opens the sockets that the service listens on."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.errors import ListenError
from service.settings.options import Endpoint

ANY_IPV6 = "::"
MAX_PORT_ATTEMPTS = 20
"""Attempts at a free port that is free at all addresses of a name."""
UNAVAILABLE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@contextmanager
def listening_at(endpoint: Endpoint) -> Iterator[list[socket.socket]]:
    """Sockets that listen at all addresses of an endpoint; closed at the end. Raises ListenError."""
    if endpoint.unix_socket is not None:
        with _unix_socket(endpoint.unix_socket, endpoint.unix_socket_mode) as listener:
            yield [listener]
        return
    with ExitStack() as sockets:
        try:
            listeners = _bind_all(endpoint.host, endpoint.port)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {endpoint.host}:{endpoint.port}: {error}; choose another host or port"
            ) from error
        for each in listeners:
            sockets.enter_context(each)
        yield listeners


@contextmanager
def reserved(endpoint: Endpoint) -> Iterator[Reservation]:
    """The addresses of an endpoint, at which several processes can then listen. Raises ListenError."""
    if endpoint.unix_socket is not None:
        with _unix_socket(endpoint.unix_socket, endpoint.unix_socket_mode) as listener:
            yield Reservation([listener])
        return
    with listening_at(endpoint) as alone:  # which fails if others listen there, and finds a free port
        addresses = [(each.family, each.getsockname()) for each in alone]
    with ExitStack() as sockets:
        try:
            bound = [sockets.enter_context(_bind_shared(*each)) for each in addresses]
        except OSError as error:  # somebody else was faster
            raise ListenError(f"cannot listen on {endpoint.host}:{endpoint.port}: {error}; retry") from error
        yield Reservation(bound)


@dataclass(frozen=True)
class Reservation:
    """Sockets that keep addresses for this process and its children."""

    sockets: list[socket.socket]

    def listeners(self) -> list[socket.socket]:
        """Further sockets at the addresses, for one child; connections are spread over all that listen."""
        return [
            each.dup() if each.family == socket.AF_UNIX else _bind_shared(each.family, each.getsockname())
            for each in self.sockets
        ]


def url_of(listener: socket.socket) -> str:
    """Its URL; for a Unix socket, `unix:` and the path."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# Hosts and ports


def _bind_all(host: str, port: int) -> list[socket.socket]:
    """Sockets at all addresses of a host, at one port. Raises OSError."""
    for attempt in range(1, MAX_PORT_ATTEMPTS + 1):
        try:
            return _try_to_bind_all(host, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or attempt == MAX_PORT_ATTEMPTS:
                raise
    raise AssertionError


def _try_to_bind_all(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            try:
                listeners.append(_bind(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in UNAVAILABLE:
                    raise
                unavailable = error  # such as ::1 on a machine without IPv6
                continue
            port = listeners[0].getsockname()[1]
    except OSError:
        for each in listeners:
            each.close()
        raise
    if not listeners and unavailable is not None:
        raise unavailable
    return listeners


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    is_dual = family == socket.AF_INET6 and address[0] == ANY_IPV6 and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, dualstack_ipv6=is_dual)


def _bind_shared(family: int, address: tuple[object, ...]) -> socket.socket:
    """A socket that does not listen yet, at an address that other processes of this user may bind to as well."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            is_dual = address[0] == ANY_IPV6 and socket.has_dualstack_ipv6()
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_dual else 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


# Unix sockets


@contextmanager
def _unix_socket(path: Path, mode: int) -> Iterator[socket.socket]:
    try:
        with _locked(path.parent):  # so that of two processes that start together, one is refused
            _remove_stale(path)
            listener = _bind_unix(path, mode)
        own = _identity_of(path)
    except OSError as error:
        raise ListenError(f"cannot listen on the Unix socket {path}: {error}; choose another path") from error
    try:
        with listener:
            yield listener
    finally:
        with suppress(OSError):
            if _identity_of(path) == own:  # and not that of a process that has replaced it
                path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bind_unix(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~mode)  # not by chmod afterwards: somebody could connect meanwhile
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that has ended. Raises ListenError for anything else at the path."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ListenError(f"{path} exists and is not a socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)  # noqa: FBT003
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # it listens, but many are waiting
    raise ListenError(f"another process listens on the Unix socket {path}; stop it, or choose another path")


def _identity_of(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
