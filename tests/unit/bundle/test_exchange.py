"""Pushing bundles to stores and pulling them: content, faults, interruptions, and several at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from model.bundle.exchange.place import StorePlace, is_url
from model.bundle.exchange.pull import pull, resolve
from model.bundle.exchange.push import push
from model.bundle.exchange.store import BundleStore, Pointer
from model.bundle.manifest import verify_files, write_manifest
from model.bundle.signatures import TrustedKeys
from model.errors import BundleStoreError, IntegrityError, UntrustedBundleError
from tests.signing import key_pair, signed
from tests.tiny import tiny_bundle

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("first"), ("toys", "games"), num_items=20)


@pytest.fixture(scope="module")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first bundle with another catalog of one domain."""
    root = Path(shutil.copytree(first, tmp_path_factory.mktemp("second") / "bundle"))
    other = tiny_bundle(tmp_path_factory.mktemp("other"), ("toys", "games"), num_items=21)
    shutil.copyfile(other / "domains" / "games" / "catalog.parquet", root / "domains" / "games" / "catalog.parquet")
    write_manifest(root)
    return root


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(url: str) -> BundleStore:
    return BundleStore(StorePlace.parse(url))


def files_of(root: Path) -> Files:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_pulled_bundle_is_the_one_that_was_pushed(first: Path, store: BundleStore, tmp_path: Path) -> None:
    pushed = push(first, store)
    assert store.latest() == Pointer(pushed.bundle, 1)
    pulled = pull(store, resolve(store, None), tmp_path / "bundles")
    assert pulled.folder == tmp_path / "bundles" / pushed.bundle
    assert files_of(pulled.folder) == files_of(first)
    assert verify_files(pulled.folder).hash == pushed.bundle
    assert not [path for path in pulled.folder.parent.iterdir() if path.name.endswith(".partial")]


def test_only_what_differs_is_sent_and_fetched(first: Path, second: Path, store: BundleStore, tmp_path: Path) -> None:
    pull(store, push(first, store).bundle, tmp_path)
    pushed = push(second, store)
    assert pushed.num_sent == 1
    pulled = pull(store, pushed.bundle, tmp_path)
    assert (pulled.num_fetched, pulled.bytes_fetched) == (1, pushed.bytes_sent)
    assert files_of(pulled.folder) == files_of(second)
    assert push(second, store).num_sent == 0
    assert pull(store, pushed.bundle, tmp_path).num_fetched == 0


def test_a_bundle_is_found_by_the_beginning_of_its_hash(first: Path, second: Path, store: BundleStore) -> None:
    one, _ = push(first, store), push(second, store)
    assert resolve(store, one.bundle[:8]) == one.bundle
    with pytest.raises(BundleStoreError, match=r"no bundle whose hash begins with 00000000; give the whole hash"):
        resolve(store, "00000000")


def test_latest_moves_only_from_what_was_expected(first: Path, second: Path, store: BundleStore) -> None:
    one = push(first, store)
    with pytest.raises(BundleStoreError, match=r"not ffff as expected; look at it, and push again"):
        push(second, store, expected_latest="ffff")
    other = push(second, store, expected_latest=one.bundle)
    assert store.latest() == Pointer(other.bundle, 2)
    push(first, store, moves_latest=False)
    assert store.latest() == Pointer(other.bundle, 2)


def test_one_of_two_that_move_latest_at_once_is_refused(first: Path, store: BundleStore) -> None:
    bundle, before = push(first, store).bundle, store.latest()
    store.move_latest("a" * 64, before)
    with pytest.raises(BundleStoreError, match=rf"was {bundle} and is now {'a' * 64}, moved by somebody else"):
        store.move_latest("b" * 64, before)
    assert store.latest().hash == "a" * 64


def test_two_that_move_latest_to_one_bundle_at_once_both_succeed(store: BundleStore) -> None:
    before = store.latest()
    store.move_latest("a" * 64, before)
    store.move_latest("a" * 64, before)
    assert store.latest() == Pointer("a" * 64, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, r"latest\.json of .* names no bundle; remove it, and push again"),
        (f'{{"bundle": "{"a" * 64}", "number": "x"}}', r"has the number 'x'; remove it, and push again"),
        (f'{{"bundle": "{"a" * 64}", "number": null}}', r"has the number None; remove it, and push again"),
        (f'{{"bundle": "{"a" * 64}", "number": -1}}', r"has the number -1; remove it, and push again"),
    ],
)
def test_a_damaged_pointer_is_refused_with_a_remedy(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "latest.json").write_text(content)
    with pytest.raises(BundleStoreError, match=message):
        BundleStore(StorePlace.parse(str(tmp_path))).latest()


@pytest.mark.parametrize("kind", ["file", "link to nothing", "link to a folder"])
def test_what_is_no_folder_is_not_replaced_by_a_bundle(
    first: Path, store: BundleStore, tmp_path: Path, kind: str
) -> None:
    bundle, root = push(first, store).bundle, tmp_path / "bundles"
    (root / "other").mkdir(parents=True)
    (root / "other" / "kept").touch()
    if kind == "file":
        (root / bundle).touch()
    else:
        (root / bundle).symlink_to("nothing" if kind == "link to nothing" else "other")
    with pytest.raises(BundleStoreError, match=r"is not a folder that a bundle can replace; remove it, and pull again"):
        pull(store, bundle, root)
    (root / bundle).unlink()
    pull(store, bundle, root)
    assert files_of(root / "other") == {"kept": b""}


@pytest.mark.parametrize("written", ["objects/", "bundles/", "latest/", "latest.json"])
def test_a_push_onto_a_full_disk_leaves_only_whole_files_and_can_be_repeated(
    first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    folder = tmp_path / "store"
    store = BundleStore(StorePlace.parse(str(folder)))
    push(first, store)
    kept = files_of(folder)

    def full(put: Callable[..., object]) -> Callable[..., object]:
        def write(files: LocalFileSystem, *arguments: str, **options: str) -> object:
            place = Path(arguments[put.__name__ == "put_file"])
            if not str(place.relative_to(folder)).startswith(written):
                return put(files, *arguments, **options)
            place.write_bytes(b"")
            raise OSError(errno.ENOSPC, "No space left on device", str(place))

        return write

    with monkeypatch.context() as patch:
        for name in ("put_file", "pipe_file"):
            patch.setattr(LocalFileSystem, name, full(getattr(LocalFileSystem, name)))
        with pytest.raises(BundleStoreError, match=r"No space left on device: .*; free some$"):
            push(second, store)
    left = files_of(folder)
    assert kept.items() <= left.items()
    assert all(left.values())
    pushed = push(second, store)
    assert store.latest() == Pointer(pushed.bundle, 2)
    assert json.loads((folder / "latest.json").read_bytes())["bundle"] == pushed.bundle


def test_the_copy_of_the_pointer_is_of_the_last_move(first: Path, tmp_path: Path) -> None:
    store = BundleStore(StorePlace.parse(str(tmp_path)))
    before = Pointer(push(first, store).bundle, 1)
    store.move_latest("a" * 64, before)
    (tmp_path / "latest" / "00000003").write_bytes((tmp_path / "latest.json").read_bytes().replace(b"a", b"b"))
    store.copy_latest()
    assert json.loads((tmp_path / "latest.json").read_bytes()) == {"bundle": "b" * 64, "number": 3}


def test_a_new_store_has_no_latest_bundle(store: BundleStore) -> None:
    with pytest.raises(BundleStoreError, match=r"has no latest bundle; push one, or name one after #"):
        resolve(store, None)
    with pytest.raises(BundleStoreError, match=r"has no bundle a{64}; push it first"):
        store.read_manifest("a" * 64)


@pytest.mark.parametrize("change", [lambda content: b"x" + content[1:], lambda content: content[:-1]])
def test_a_damaged_object_is_never_seen_under_the_bundles_name(
    first: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    place = StorePlace.parse(str(tmp_path / "store"))
    store = BundleStore(place)
    pushed = push(first, store)
    found = max((tmp_path / "store" / "objects").iterdir(), key=lambda path: path.stat().st_size)
    found.write_bytes(change(found.read_bytes()))
    with pytest.raises((IntegrityError, BundleStoreError), match=r"push the bundle again with --resend"):
        pull(store, pushed.bundle, tmp_path / "bundles")
    assert not (tmp_path / "bundles" / pushed.bundle).exists()
    assert push(first, store, sends_all=True).num_sent == pushed.num_files
    assert files_of(pull(store, pushed.bundle, tmp_path / "bundles").folder) == files_of(first)


def test_a_changed_manifest_in_the_store_is_refused(first: Path, tmp_path: Path) -> None:
    store = BundleStore(StorePlace.parse(str(tmp_path / "store")))
    bundle = push(first, store).bundle
    path = tmp_path / "store" / "bundles" / bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(IntegrityError, match=r"was modified: its sha256 is"):
        pull(store, bundle, tmp_path / "bundles")


def test_a_damaged_copy_is_pulled_again_and_never_linked(first: Path, second: Path, tmp_path: Path) -> None:
    store = BundleStore(StorePlace.parse(str(tmp_path / "store")))
    one, other = push(first, store).bundle, push(second, store).bundle
    weights = pull(store, one, tmp_path / "bundles").folder / "backbone" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"x" + content[1:])
    assert files_of(pull(store, other, tmp_path / "bundles").folder) == files_of(second)
    assert files_of(pull(store, one, tmp_path / "bundles").folder) == files_of(first)


def test_signatures_travel_and_are_asked_for(first: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    copy = Path(shutil.copytree(first, tmp_path / "bundle"))
    store = BundleStore(StorePlace.parse(str(tmp_path / "store")))
    bundle = push(copy, store).bundle
    with pytest.raises(UntrustedBundleError, match=r"is not signed; sign it with vip5 bundle sign"):
        pull(store, bundle, tmp_path / "bundles", trusted=TrustedKeys(public))
    signed(copy, private)
    assert push(copy, store).num_sent == 0
    pulled = pull(store, bundle, tmp_path / "bundles", trusted=TrustedKeys(public))
    assert files_of(pulled.folder) == files_of(copy)


def test_a_pull_that_was_killed_goes_on_where_it_was(first: Path, tmp_path: Path) -> None:
    store = BundleStore(StorePlace.parse(str(tmp_path / "store")))
    bundle = push(first, store).bundle
    num_files = len(verify_files(first).files)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from model.bundle.exchange.place import StorePlace; from model.bundle.exchange import pull as p\n"
        "from model.bundle.exchange.store import BundleStore\n"
        "left = [int(sys.argv[4])]\n"
        "def report(what, done, total):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "p._CHUNK = 1024\n"
        "p.pull(BundleStore(StorePlace.parse(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), progress=report)\n"
    )
    chunks = sum(-(-record.size // 1024) for record in verify_files(first).files.values())
    killed = 0
    for after in (1, chunks // 2, chunks // 3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "store"), bundle, str(tmp_path / "bundles"), str(after)],
            check=False,
            env=os.environ,
        )
        killed += done.returncode == -signal.SIGKILL
        assert not (tmp_path / "bundles" / bundle).exists()
    assert killed == 3
    pulled = pull(store, bundle, tmp_path / "bundles")
    assert 0 < pulled.num_fetched < num_files
    assert files_of(pulled.folder) == files_of(first)


def test_several_may_pull_at_once(first: Path, store: BundleStore, tmp_path: Path) -> None:
    bundle = push(first, store).bundle
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(pull(store, bundle, tmp_path / "bundles").num_fetched))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 0, 0, max(found)]
    assert files_of(tmp_path / "bundles" / bundle) == files_of(first)


def test_a_file_that_changes_while_it_is_pushed_is_taken_back(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(first, tmp_path / "bundle"))
    store = BundleStore(StorePlace.parse(str(tmp_path / "store")))
    put = BundleStore.put_object

    def changed(self: BundleStore, sha256: str, local: str) -> None:
        Path(local).write_bytes(Path(local).read_bytes()[::-1])
        put(self, sha256, local)

    monkeypatch.setattr(BundleStore, "put_object", changed)
    with pytest.raises(IntegrityError, match=r"was changed while it was pushed; restore it, and push again"):
        push(copy, store)
    assert not list((tmp_path / "store" / "objects").iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no store of bundles; write a URL such as s3://bucket/bundles"),
        ("s3://", "'s3://' is no store of bundles; write a URL such as s3://bucket/bundles"),
        ("file:///", "'file:///' is no store of bundles"),
        ("s3:/bucket/bundles", "'s3:/bucket/bundles' is no store of bundles"),
        ("s3://b#xyz", "names the bundle 'xyz' after #; write at least 8 hexadecimal digits"),
        ("s3://b#abc", "names the bundle 'abc' after #; write at least 8 hexadecimal digits"),
    ],
)
def test_a_bad_address_is_refused(text: str, message: str) -> None:
    with pytest.raises(BundleStoreError, match=message):
        StorePlace.parse(text)


def test_an_unknown_kind_of_store_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BundleStoreError, match=r"nosuch://x cannot be read as a store: .*; use file, s3, gs or https"):
        BundleStore(StorePlace.parse("nosuch://x"))


def test_addresses_are_told_from_paths_and_shown_without_passwords() -> None:
    assert [is_url(text) for text in ("s3://b/c", "file:///x", "demo/bundle", "/srv/x", "c:/x")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert StorePlace.parse("https://me:secret@host/shop#12345678").shown == "https://host/shop"
    assert StorePlace.parse("s3://models/shop").name == "models-shop"
