"""Pictures from the web are fetched once and kept, or say why they cannot be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from feature_cache.encoding import downloads as downloads_module
from feature_cache.encoding.downloads import Downloads
from feature_cache.encoding.sources import PictureError

CONTENT = b"picture " * 1000


class Shop(ThreadingHTTPServer):
    """Answers /<statuses>: the first try gets the first, and so on; the last one stays."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: dict[str, int] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Shop)
        statuses = self.path.strip("/").split("-")
        tries = self.server.asked[self.path] = self.server.asked.get(self.path, 0) + 1
        status = statuses[min(tries, len(statuses)) - 1]
        if status == "moved":
            self.send_response(302)
            self.send_header("Location", "/200")
            self.send_header("Content-Length", "0")
            self.end_headers()
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
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return Downloads(tmp_path / "cache", backoff_s=0)


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
