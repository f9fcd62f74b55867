"""Pictures from the web are fetched once and kept, or say why they cannot be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from feature_cache.encoding import connections
from feature_cache.encoding import downloads as downloads_module
from feature_cache.encoding.addresses import AllowedHosts
from feature_cache.encoding.downloads import Downloads
from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.sources import PictureError
from tests.server_threads import serving_in_a_thread

CONTENT = b"picture " * 1000


class Shop(ThreadingHTTPServer):
    """Answers /<statuses>: the first try gets the first, and so on; the last one stays."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: dict[str, int] = {}
        self.locations = {"moved": "/200", "circle": "/circle"}
        self.release = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Shop)
        statuses = self.path.strip("/").split("-")
        tries = self.server.asked[self.path] = self.server.asked.get(self.path, 0) + 1
        status = statuses[min(tries, len(statuses)) - 1]
        if status == "stalled":
            self.server.release.wait(20)
            self.close_connection = True
            return
        if status in self.server.locations:
            self.send_response(302)
            self.send_header("Location", self.server.locations[status])
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            self.close_connection = True
            return
        if status == "packed":
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.close_connection = True
            return
        self.send_response(200 if status == "short" else int(status))
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:10] if status == "short" else CONTENT)
        self.close_connection = status == "short"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@pytest.fixture
def shop() -> Iterator[Shop]:
    server = Shop()
    with serving_in_a_thread(server):
        yield server
        server.release.set()


@pytest.fixture
def downloads(shop: Shop, tmp_path: Path) -> Downloads:
    return Downloads(tmp_path / "cache", allowed_hosts=AllowedHosts.parse([shop.host]), backoff_s=0)


def kept(downloads: Downloads, folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


def test_a_picture_is_fetched_once(shop: Shop, downloads: Downloads, tmp_path: Path) -> None:
    for _ in range(3):
        assert downloads.read(shop.url("200")) == CONTENT
    assert Downloads(tmp_path / "cache").read(shop.url("200")) == CONTENT
    assert shop.asked == {"/200": 1}
    assert len(kept(downloads, tmp_path)) == 1


def test_an_overloaded_server_is_asked_again(shop: Shop, downloads: Downloads) -> None:
    assert downloads.read(shop.url("503-429-200")) == CONTENT
    assert shop.asked == {"/503-429-200": 3}


def test_redirections_are_followed(shop: Shop, downloads: Downloads) -> None:
    assert downloads.read(shop.url("moved")) == CONTENT


@pytest.mark.parametrize(
    ("path", "reason", "tries"),
    [("404", "the server answered 404", 1), ("503", "the server answered 503", 5), ("short", "not be downloaded", 1)],
)
def test_what_fails_leaves_nothing_behind(
    path: str, reason: str, tries: int, shop: Shop, downloads: Downloads, tmp_path: Path
) -> None:
    with pytest.raises(PictureError, match=reason):
        downloads.read(shop.url(path))
    assert shop.asked == {f"/{path}": tries}
    assert kept(downloads, tmp_path) == []


def test_too_large_a_file_is_not_kept(
    shop: Shop, downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module, "MAX_BYTES", 100)
    with pytest.raises(PictureError, match="larger than"):
        downloads.read(shop.url("200"))
    assert kept(downloads, tmp_path) == []


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999/a.jpg", "http://[::1/a.jpg"])
def test_an_address_that_cannot_be_one_is_a_fault(url: str, downloads: Downloads) -> None:
    with pytest.raises(PictureError, match="cannot be downloaded"):
        downloads.read(url)


def test_nobody_listening_is_a_fault(shop: Shop, downloads: Downloads) -> None:
    url = shop.url("200")
    shop.server_close()
    with pytest.raises(PictureError, match="cannot be downloaded"):
        downloads.read(url)


# What a server must not be able to do


def refusal(downloads: Downloads, url: str) -> str:
    with pytest.raises(PictureError) as raised:
        downloads.read(url)
    return str(raised.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_a_service_of_this_machine_is_not_asked(host: str, shop: Shop, tmp_path: Path) -> None:
    url = f"http://{host}:{shop.server_address[1]}/200"
    assert "is not allowed, only 80 and 443 are" in refusal(Downloads(tmp_path), url)
    assert "address" in refusal(Downloads(tmp_path), f"http://{host}/200")
    assert shop.asked == {}


def test_a_redirection_is_checked_like_the_first_address(shop: Shop, downloads: Downloads) -> None:
    with Shop() as hidden:
        for status, location in (("port", hidden.url("200")), ("scheme", "file:///etc/passwd"), ("name", "ftp://a/b")):
            shop.locations[status] = location
            assert refusal(downloads, shop.url(status))
        shop.locations["metadata"] = "http://169.254.169.254/latest/meta-data/"
        assert "never a server of pictures" in refusal(downloads, shop.url("metadata"))
        shop.locations["private"] = "http://10.1.2.3/a.png"
        assert "to allow it, give --allow-host 10.1.2.3" in refusal(downloads, shop.url("private"))
        assert hidden.asked == {}


def test_redirections_end(shop: Shop, downloads: Downloads) -> None:
    assert "redirected more than 5 times" in refusal(downloads, shop.url("circle"))
    assert shop.asked == {"/circle": 6}


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is checked and private when it is used."""
    answers = [("93.184.215.14", 80), ("127.0.0.1", shop.server_address[1])]
    connected: list[object] = []

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answers[0] if len(connected) == 0 else answers[1])]

    def connect(address: object, *_: object, **__: object) -> socket.socket:
        connected.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(connections, "create_connection", connect)
    assert refusal(Downloads(tmp_path, backoff_s=0), "http://rebinding.example/200")
    assert connected == [("93.184.215.14", 80)]
    assert shop.asked == {}


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", (address, 80)) for address in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(PictureError, match=r"private address 10\.0\.0\.1"):
        AllowedHosts().resolve("mixed.example", 80)
    assert AllowedHosts.parse(["mixed.example"]).resolve("Mixed.Example.", 80) == ["93.184.215.14", "10.0.0.1"]


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.2", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::1", "fc00::1", "fec0::1", "2001:db8::1", "::ffff:10.0.0.1", "::10.0.0.1", "2002:a00:1::"),
        *("64:ff9b::a00:1", "64:ff9b:1::a00:1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
    ],
)
def test_private_addresses_are_refused_unless_their_host_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (address, 443))])
    with pytest.raises(PictureError, match="private address"):
        AllowedHosts().resolve("inside.example", 443)
    assert AllowedHosts.parse(["inside.example"]).resolve("inside.example", 443) == [address]


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "169.254.0.1", "fe80::1"),
        *("224.0.0.1", "ff02::1", "0.0.0.0", "::", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::"),
    ],
)
def test_some_addresses_are_refused_even_if_their_host_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (address, 80))])
    with pytest.raises(PictureError, match="never a server of pictures"):
        AllowedHosts.parse(["inside.example"]).resolve("inside.example", 80)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "2002:5db8:d70e::"]
)
def test_public_addresses_are_allowed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (address, 80))])
    assert AllowedHosts().resolve("shop.example", 80) == [address]


@pytest.mark.parametrize("text", ["http://a", "*.a", "", "10.0.0.0/8", "a:b", "user@a", ":80"])
def test_only_hosts_can_be_named(text: str) -> None:
    with pytest.raises(EncodingError, match="is not a host"):
        AllowedHosts.parse([text])


def test_proxies_of_the_environment_are_not_used(
    shop: Shop, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert downloads.read(shop.url("200")) == CONTENT


def test_a_compressed_answer_is_not_unpacked(shop: Shop, downloads: Downloads) -> None:
    assert "compressed it (gzip)" in refusal(downloads, shop.url("packed"))


def test_a_server_that_sends_no_headers_is_given_up(
    shop: Shop, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.01)
    assert "cannot be downloaded" in refusal(downloads, shop.url("stalled"))
    assert shop.asked == {"/stalled": 5}


def test_a_picture_that_takes_too_long_is_given_up(
    shop: Shop, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads_module, "_MAX_SECONDS", -1.0)
    assert "cannot be downloaded within" in refusal(downloads, shop.url("200"))


@pytest.mark.parametrize("url", ["ftp://a/b", "file:///etc/passwd", "http://user:password@shop.example/a.png"])
def test_only_http_and_https_without_a_password(url: str, downloads: Downloads) -> None:
    assert "not an http or https URL" in refusal(downloads, url)
