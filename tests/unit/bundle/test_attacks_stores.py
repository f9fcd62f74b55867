"""A hostile store of bundles can make a pull fail, and no more: not leave the folder, nor fill the memory."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feature_cache.encoding import addresses
from model.bundle.exchange.place import StorePlace
from model.bundle.exchange.pull import pull, resolve
from model.bundle.exchange.push import push
from model.bundle.exchange.store import BundleStore
from model.bundle.manifest import verify_files
from model.errors import BundleError, BundleStoreError, IntegrityError
from tests.server_threads import serving_in_a_thread
from tests.tiny import tiny_bundle

MANY = 64 << 20
"""Bytes that a server would send in place of some hundred."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), num_items=20)


class Server(ThreadingHTTPServer):
    """Serves a folder without ranges, and `endless` paths until nobody reads."""

    daemon_threads = True

    def __init__(self, root: Path, endless: str = "", host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), Answer)
        self.root = root
        self.endless = endless
        self.num_sent = 0
        self.elsewhere = ""
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.server.root / self.path.lstrip("/")
        if self.server.endless and self.server.endless in self.path:
            self._send_much()
        elif self.server.elsewhere and "objects" in self.path:
            self.send_response(302)
            self.send_header("Location", self.server.elsewhere)
            self.end_headers()
        elif path.is_file():
            self.send_response(200)
            self.end_headers()
            self.wfile.write(path.read_bytes())
        else:
            self.send_error(404)

    def _send_much(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while self.server.num_sent < MANY:
                self.server.num_sent += self.wfile.write(b"{" * (1 << 16))
        except OSError:  # nobody reads any more
            pass

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[BundleStore]:
    pytest.importorskip("aiohttp")
    with serving_in_a_thread(server):
        yield BundleStore(StorePlace.parse(f"http://127.0.0.1:{server.server_port}"))


def pushed(bundle: Path, folder: Path) -> str:
    return push(bundle, BundleStore(StorePlace.parse(str(folder)))).bundle


def forged(folder: Path, files: dict[str, object]) -> str:
    """A store whose latest bundle has a manifest of these files."""
    document = json.dumps({"format_version": 1, "files": files}).encode()
    name = sha256(document).hexdigest()
    (folder / "bundles" / name).mkdir(parents=True)
    (folder / "bundles" / name / "manifest.json").write_bytes(document)
    return name


def test_a_web_server_without_ranges_is_a_store(bundle: Path, tmp_path: Path) -> None:
    name = pushed(bundle, tmp_path / "store")
    with serving(Server(tmp_path / "store")) as store:
        assert resolve(store, None) == name
        assert verify_files(pull(store, name, tmp_path / "pulled").folder).hash == name


@pytest.mark.parametrize("endless", ["latest.json", "manifest.json", "objects/"])
def test_a_server_that_sends_without_end_is_not_listened_to(bundle: Path, tmp_path: Path, endless: str) -> None:
    name = pushed(bundle, tmp_path / "store")
    server = Server(tmp_path / "store", endless)
    with serving(server) as store, pytest.raises(BundleError):
        pull(store, resolve(store, None if endless == "latest.json" else name), tmp_path / "pulled")
    assert not (tmp_path / "pulled" / name).exists()
    assert server.num_sent < MANY


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped", "domains/../../escaped", "domains/toys/../../../x"])
def test_a_manifest_of_a_store_names_no_path_outside(tmp_path: Path, path: str) -> None:
    name = forged(tmp_path / "store", {path: {"sha256": "0" * 64, "size": 1}})
    with pytest.raises(IntegrityError, match="outside the bundle"):
        pull(BundleStore(StorePlace.parse(str(tmp_path / "store"))), name, tmp_path / "pulled")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("record", [("../../../secret", 6), ("A" * 64, 6), ("0" * 64, -1), ("", 0)])
def test_a_digest_of_a_manifest_names_nothing_but_an_object(tmp_path: Path, record: tuple[str, int]) -> None:
    (tmp_path / "secret").write_text("secret")
    digest, size = record
    name = forged(tmp_path / "store", {"backbone/config.json": {"sha256": digest, "size": size}})
    with pytest.raises(IntegrityError, match="64 hexadecimal digits"):
        pull(BundleStore(StorePlace.parse(str(tmp_path / "store"))), name, tmp_path / "pulled")
    assert not list((tmp_path / "pulled").glob(".*partial/*"))


def test_a_bundle_larger_than_the_disk_is_refused_before_any_of_it_is_fetched(tmp_path: Path) -> None:
    names = [f"domains/d{number}/features.safetensors" for number in range(900)]
    files: dict[str, object] = {name: {"sha256": "0" * 64, "size": 256 << 30} for name in names}
    name = forged(tmp_path / "store", files)
    with pytest.raises(BundleStoreError, match="but the bundle needs"):
        pull(BundleStore(StorePlace.parse(str(tmp_path / "store"))), name, tmp_path / "pulled")


def test_what_a_redirection_leads_to_is_not_taken_for_an_object(bundle: Path, tmp_path: Path) -> None:
    """Both are on this machine, so the request is sent; its answer is worth nothing."""
    name = pushed(bundle, tmp_path / "store")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "credentials").write_text("of this machine")
    server, other = Server(tmp_path / "store"), Server(inner)
    with serving(other), serving(server) as store:
        server.elsewhere = f"http://127.0.0.1:{other.server_port}/credentials"
        with pytest.raises(BundleError) as error:
            pull(store, name, tmp_path / "pulled")
    assert "of this machine" not in str(error.value)
    assert not (tmp_path / "pulled" / name).exists()


@pytest.mark.parametrize("host", ["127.0.0.2", "inside.test"])
def test_a_store_does_not_lead_further_inside_than_it_is(
    bundle: Path, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, 127.0.0.1 stands for the internet, and everything else is as it is."""
    redirections = pytest.importorskip("model.bundle.exchange.redirections")
    public, scope_of, resolve_name = ip_address("127.0.0.1"), redirections.scope_of, socket.getaddrinfo

    def scope_here(address: IPv4Address) -> object:
        return redirections.Scope.PUBLIC if address == public else scope_of(address)

    def resolved(name: str, *arguments: object, **options: object) -> object:
        return resolve_name("127.0.0.2" if name == "inside.test" else name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(redirections, "scope_of", scope_here)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    name = pushed(bundle, tmp_path / "store")
    server, other = Server(tmp_path / "store"), Server(tmp_path / "store", host="127.0.0.2")
    with serving(other), serving(server) as store:
        server.elsewhere = f"http://{host}:{other.server_port}/objects"
        with pytest.raises(BundleError, match=f"redirects to {host}, which has the address 127.0.0.2"):
            pull(store, name, tmp_path / "pulled")
    assert other.asked == []


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("93.184.216.34", "PUBLIC"),
        ("2606:2800:220:1:248:1893:25c8:1946", "PUBLIC"),
        ("10.1.2.3", "NETWORK"),
        ("100.64.0.1", "NETWORK"),
        ("192.168.1.1", "NETWORK"),
        ("fd12::1", "NETWORK"),
        ("127.0.0.1", "MACHINE"),
        ("::1", "MACHINE"),
        ("169.254.169.254", "NOBODY"),
        ("168.63.129.16", "NOBODY"),
        ("fd00:ec2::254", "NOBODY"),
        ("fe80::1", "NOBODY"),
        ("0.0.0.0", "NOBODY"),
        ("::ffff:10.1.2.3", "NOBODY"),
        ("::ffff:93.184.216.34", "NOBODY"),
        ("2002:0a01:0203::1", "NOBODY"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "NOBODY"),
        ("64:ff9b::a01:203", "NOBODY"),
        ("::7f00:1", "NOBODY"),
    ],
)
def test_who_reaches_an_address(address: str, scope: str) -> None:
    redirections = pytest.importorskip("model.bundle.exchange.redirections")
    assert redirections.scope_of(ip_address(address)).name == scope


@given(st.ip_addresses())
@example(ip_address("100.64.0.1"))
@example(ip_address("2002:7f00:1::"))
@example(ip_address("::ffff:127.0.0.1"))
@example(ip_address("64:ff9b::7f00:1"))
def test_what_is_public_for_stores_is_public_for_pictures(address: IPv4Address | IPv6Address) -> None:
    """Both packages judge addresses, and know nothing of each other."""
    redirections = pytest.importorskip("model.bundle.exchange.redirections")
    assert redirections._CREDENTIALS == addresses._METADATA
    if redirections.scope_of(address) is redirections.Scope.PUBLIC:
        addresses._check(address, "store.test", 443, is_allowed=False)


def test_a_store_in_the_network_may_lead_to_its_neighbours_and_not_to_this_machine() -> None:
    redirections = pytest.importorskip("model.bundle.exchange.redirections").Redirections("store.test")
    with pytest.raises(BundleStoreError, match="further inside"):
        redirections.check("mirror.test", ["10.1.2.4"])
    redirections.check("store.test", ["10.1.2.3"])
    redirections.check("mirror.test", ["10.1.2.4"])
    for address in ("127.0.0.1", "169.254.169.254"):
        with pytest.raises(BundleStoreError, match="further inside"):
            redirections.check("mirror.test", [address])
