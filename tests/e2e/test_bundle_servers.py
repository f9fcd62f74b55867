"""Bundles over real servers: moto's for S3, and a web server. Skipped where the drivers are not installed.

They are none of the locked packages: `pip install s3fs "moto[s3,server]" aiohttp` for these tests.
"""

from __future__ import annotations

import functools
import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.bundle.exchange.place import StorePlace
from model.bundle.exchange.pull import pull, resolve
from model.bundle.exchange.push import push
from model.bundle.exchange.store import BundleStore
from model.errors import BundleStoreError
from tests.server_threads import serving_in_a_thread
from tests.tiny import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("served"), num_items=20)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs, of the extra s3, is not installed")
    moto = pytest.importorskip("moto.server", reason="moto, a server for S3, is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = tmp_path.name.replace("_", "-")  # moto's servers share their content
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}/shop"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server of the folder `site`, which lists nothing."""
    pytest.importorskip("aiohttp", reason="aiohttp, of the extra http, is not installed")
    (tmp_path / "site").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    quiet = functools.partial(Quiet, directory=tmp_path / "site")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet)
    with serving_in_a_thread(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_bundle_goes_through_s3(bundle: Path, bucket: str, tmp_path: Path) -> None:
    store = BundleStore(StorePlace.parse(bucket))
    pushed = push(bundle, store)
    assert push(bundle, store).num_sent == 0
    pulled = pull(store, resolve(store, pushed.bundle[:8]), tmp_path / "bundles")
    assert resolve(store, None) == pushed.bundle == pulled.folder.name
    assert (pulled.folder / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def test_one_of_two_that_move_latest_in_s3_is_refused(bundle: Path, bucket: str) -> None:
    store = BundleStore(StorePlace.parse(bucket))
    push(bundle, store)
    before = store.latest()
    store.move_latest("a" * 64, before)
    with pytest.raises(BundleStoreError, match=r"moved by somebody else"):
        store.move_latest("b" * 64, before)
    assert store.latest().hash == "a" * 64


def test_a_store_is_read_over_http(bundle: Path, web: str, tmp_path: Path) -> None:
    pushed = push(bundle, BundleStore(StorePlace.parse(str(tmp_path / "site" / "shop"))))
    store = BundleStore(StorePlace.parse(f"{web}/shop"))
    pulled = pull(store, resolve(store, None), tmp_path / "bundles")
    assert pulled.folder.name == pushed.bundle
    with pytest.raises(BundleStoreError, match=r"cannot (write|look up)"):
        push(bundle, store, sends_all=True)
