"""Where the service listens: hosts with several addresses, both protocols, Unix sockets; and the probe that asks it."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import ListenError
from service.http.listening import listening_at, url_of
from service.observability import probe
from service.settings.options import Endpoint

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def ports_of(listeners: list[socket.socket]) -> set[int]:
    return {each.getsockname()[1] for each in listeners}


def connect(host: str, port: int) -> None:
    socket.create_connection((host, port), timeout=30).close()


@contextmanager
def answering(listener: socket.socket, answer: bytes = READY) -> Iterator[None]:
    """Answers one request on a thread."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while b"\r\n\r\n" not in connection.recv(4096):
                pass
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)


@needs_ipv6
def test_all_interfaces_of_ipv6_are_those_of_ipv4_too() -> None:
    with listening_at(Endpoint("::", 0)) as (listener,):
        (port,) = ports_of([listener])
        connect("127.0.0.1", port)
        connect("::1", port)
        assert url_of(listener) == f"http://[::]:{port}"


@needs_ipv6
def test_a_name_is_listened_on_at_all_its_addresses_and_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    with listening_at(Endpoint("both", 0)) as listeners:
        assert len(listeners) == 2
        assert len(ports_of(listeners)) == 1


def test_an_address_that_the_machine_lacks_does_not_matter_beside_one_that_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", 0))
    present = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [lacking, present])
    with listening_at(Endpoint("name", 0)) as (listener,):
        assert listener.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [lacking])
    with pytest.raises(ListenError, match="cannot listen on name:0"), listening_at(Endpoint("name", 0)):
        pass


def test_a_port_that_is_taken_is_refused() -> None:
    with listening_at(Endpoint("127.0.0.1", 0)) as listeners:
        (port,) = ports_of(listeners)
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}"), listening_at(Endpoint("127.0.0.1", port)):
            pass


# Unix sockets


def at(path: Path, mode: int = 0o660) -> Endpoint:
    return Endpoint("", 0, path, mode)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_its_permissions_from_the_start_and_is_removed(tmp_path: Path, mode: int) -> None:
    path, before = tmp_path / "vip5.sock", os.umask(0o077)
    os.umask(before)
    with listening_at(at(path, mode)) as (listener,):
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert url_of(listener) == f"unix:{path}"
    assert not path.exists()
    assert os.umask(before) == before


def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "vip5.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with listening_at(at(path)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        with pytest.raises(ListenError, match="another process listens"), listening_at(at(path)):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_only_sockets_are_replaced(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path / "link", tmp_path / "folder"):
        if path.name == "link":
            path.symlink_to(tmp_path / "file")
        elif path.name == "folder":
            path.mkdir()
        else:
            path.write_text("precious")
        with pytest.raises(ListenError, match="is not a socket"), listening_at(at(path)):
            pass
    assert (tmp_path / "file").read_text() == "precious"


def test_a_socket_that_another_process_put_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "vip5.sock"
    with socket.socket(socket.AF_UNIX) as other:
        with listening_at(at(path)):
            path.unlink()
            other.bind(str(path))
        assert path.exists()


@pytest.mark.parametrize("path", ["missing/vip5.sock", "x" * 200])
def test_a_path_that_cannot_be_bound_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on the Unix socket"), listening_at(at(tmp_path / path)):
        pass


# The probe


def probed(monkeypatch: pytest.MonkeyPatch, **variables: str) -> object:
    for name in ("VIP5_HOST", "VIP5_PORT", "VIP5_UNIX_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        probe.main()
    return ended.value.code


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "::", "::1", "[::1]", "127.0.0.2"])
def test_the_probe_asks_where_the_service_listens(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with listening_at(Endpoint(host.strip("[]"), 0)) as listeners:
        (port,) = ports_of(listeners)
        with answering(listeners[0]):
            assert probed(monkeypatch, VIP5_HOST=host, VIP5_PORT=str(port)) is None


def test_the_probe_asks_the_unix_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "vip5.sock"
    with listening_at(at(path)) as (listener,), answering(listener):
        assert probed(monkeypatch, VIP5_UNIX_SOCKET=str(path), VIP5_HOST="::", VIP5_PORT="1") is None
    assert "FileNotFoundError" in str(probed(monkeypatch, VIP5_UNIX_SOCKET=str(path)))


def test_the_probe_says_why_the_service_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = b"HTTP/1.1 503 No\r\nContent-Length: 12\r\nConnection: close\r\n\r\nnot ready yet"
    with listening_at(Endpoint("127.0.0.1", 0)) as (listener,), answering(listener, refused):
        assert probed(monkeypatch, VIP5_PORT=str(listener.getsockname()[1])) == "503 not ready ye"
    assert "ValueError" in str(probed(monkeypatch, VIP5_PORT="eighty"))
