"""An index is kept once, found by its key alone, and never used when somebody else could have written it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from model.bundle.bundle import Bundle, open_bundle
from model.bundle.index.cache import IndexCache
from model.bundle.index.folder import usual_folder
from model.errors import IntegrityError
from tests.tiny import tiny_bundle
from tests.unit.bundle.index.tables import KEY, tiny_index

OTHER_KEY = "f" * 64


@pytest.fixture
def cache(tmp_path: Path) -> IndexCache:
    return IndexCache(tmp_path / "cache" / "indexes", min_items=10)


def kept_files(cache: IndexCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir())


def reasons(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [record.reason for record in caplog.records if record.msg == event]  # type: ignore[attr-defined]


def test_an_index_is_found_again_by_its_key(cache: IndexCache) -> None:
    assert cache.find(KEY) is None
    assert cache.keep(tiny_index())
    found = cache.find(KEY)
    assert found is not None
    assert bytes(found.memory.map()) == bytes(tiny_index().memory.map())
    assert cache.find(OTHER_KEY) is None
    assert kept_files(cache) == [f"{KEY}.index"]
    assert (cache.folder / f"{KEY}.index").stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_file_under_another_key_is_stale(cache: IndexCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.keep(tiny_index())
    (cache.folder / f"{KEY}.index").rename(cache.folder / f"{OTHER_KEY}.index")
    assert cache.find(OTHER_KEY) is None
    assert reasons(caplog, "index_not_used") == [f"{OTHER_KEY[:12]}.index is an index of something else"]


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "emptied", "a folder", "a link", "a pipe"])
def test_a_damaged_file_is_reported_and_replaced(
    cache: IndexCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep(tiny_index())
    path = cache.folder / f"{KEY}.index"
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage == "a link":
        (cache.folder / "elsewhere").write_bytes(content)
        path.symlink_to(cache.folder / "elsewhere")
    elif damage == "a pipe":
        os.mkfifo(path)
    else:
        middle = len(content) // 2
        changed = content[:middle] + b"damage" + content[middle + 6 :]
        path.write_bytes({"truncated": content[:-1], "overwritten": changed, "emptied": b""}[damage])
        path.chmod(0o600)
    assert cache.find(KEY) is None
    assert len(reasons(caplog, "index_not_used")) == 1
    assert cache.keep(tiny_index()) is (damage != "a folder")
    assert (cache.find(KEY) is None) is (damage == "a folder")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_used(
    cache: IndexCache, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep(tiny_index())
    (cache.folder / f"{KEY}.index").chmod(mode)
    assert cache.find(KEY) is None
    (reason,) = reasons(caplog, "index_not_used")
    assert "chmod go-w" in reason


@pytest.mark.parametrize("which", ["folder", "parent"])
def test_a_folder_that_others_may_write_to_is_not_used(
    cache: IndexCache, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep(tiny_index())
    (cache.folder if which == "folder" else cache.folder.parent).chmod(0o777)
    assert cache.find(KEY) is None
    assert not cache.keep(tiny_index())
    assert len(reasons(caplog, "index_not_used")) == len(reasons(caplog, "index_not_kept")) == 1


def test_a_folder_of_many_where_files_are_their_owners_alone_may_be_above(cache: IndexCache) -> None:
    cache.folder.mkdir(parents=True)
    cache.folder.chmod(0o700)
    cache.folder.parent.chmod(0o1777)
    assert cache.keep(tiny_index())
    assert cache.find(KEY) is not None


def test_what_belongs_to_another_user_is_not_used(
    cache: IndexCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.keep(tiny_index())
    monkeypatch.setattr("model.bundle.index.cache._trusted_users", lambda: (os.geteuid() + 1,))
    assert cache.find(KEY) is None
    (reason,) = reasons(caplog, "index_not_used")
    assert "belongs to user" in reason


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file")
    cache = IndexCache(tmp_path / "taken" / "indexes")
    assert cache.find(KEY) is None
    assert not cache.keep(tiny_index())
    assert len(reasons(caplog, "index_not_kept")) == 1


def test_writers_of_one_key_do_not_disturb_each_other(cache: IndexCache) -> None:
    index = tiny_index()
    begin = threading.Barrier(8)

    def write() -> None:
        begin.wait()
        assert cache.keep(index)
        assert cache.find(KEY) is not None

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept_files(cache) == [f"{KEY}.index"]


def test_a_writer_that_fails_leaves_nothing(cache: IndexCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not cache.keep(tiny_index())
    assert kept_files(cache) == []


def test_the_least_recently_used_are_removed_beyond_the_limit(cache: IndexCache) -> None:
    size = tiny_index().memory.size
    small = IndexCache(cache.folder, most_bytes=2 * size + size // 2)
    keys = [str(number) * 64 for number in range(4)]
    for age, key in enumerate(keys):
        small.keep(tiny_index(key=key))
        os.utime(small.folder / f"{key}.index", (1_000_000 + age, 1_000_000 + age))
    assert kept_files(small) == [f"{key}.index" for key in keys[2:]]
    (small.folder / f".{KEY}.abandoned").write_bytes(b"x")
    os.utime(small.folder / f".{KEY}.abandoned", (1, 1))
    small.find(keys[2])
    small.keep(tiny_index(key="9" * 64))
    assert kept_files(small) == [f"{key}.index" for key in (keys[2], "9" * 64)]


def test_the_usual_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert usual_folder() == tmp_path / "vip5-serve" / "indexes"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert usual_folder() == tmp_path / ".cache" / "vip5-serve" / "indexes"


def test_a_bundle_is_compiled_once(cache: IndexCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tiny_bundle(tmp_path, ("toys", "garments"), num_items=20)
    caplog.set_level(logging.INFO)
    first = open_bundle(root, None, cache)
    assert [record.msg for record in caplog.records] == ["index_built", "index_kept", "index_found"]
    second = open_bundle(root, None, cache)
    assert [record.msg for record in caplog.records[3:]] == ["index_found", "index_found"]
    assert same_tables(first, second)
    assert same_tables(open_bundle(root), second)


def test_a_small_catalog_is_not_kept(tmp_path: Path) -> None:
    cache = IndexCache(tmp_path / "cache")
    bundle = open_bundle(tiny_bundle(tmp_path, num_items=20), None, cache)
    assert bundle.domains["toys"].index is None
    assert not cache.folder.exists()


def test_a_changed_table_gets_another_index(cache: IndexCache, tmp_path: Path) -> None:
    for folder, num_items in (("a", 20), ("b", 21)):
        open_bundle(tiny_bundle(tmp_path / folder, num_items=num_items), None, cache)
    assert len(kept_files(cache)) == 2


def test_a_damaged_index_is_built_again(cache: IndexCache, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tiny_bundle(tmp_path, num_items=20)
    plain = open_bundle(root, None, cache)
    (path,) = cache.folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes(100))
    assert same_tables(plain, open_bundle(root, None, cache))
    assert len(reasons(caplog, "index_not_used")) == 1
    assert path.read_bytes() == whole


def test_without_memory_to_share_what_was_read_is_served(
    cache: IndexCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    root = tiny_bundle(tmp_path, num_items=20)
    whole = open_bundle(root, None, cache)
    monkeypatch.setattr(os, "memfd_create", refuse)
    assert same_tables(open_bundle(root, None, cache), whole)
    assert len(reasons(caplog, "index_not_used")) == len(reasons(caplog, "index_not_built")) == 1


def test_a_changed_table_is_refused_though_its_index_is_there(cache: IndexCache, tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path, num_items=20)
    open_bundle(root, None, cache)
    path = root / "domains/toys/catalog.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(IntegrityError, match=r"catalog\.parquet"):
        open_bundle(root, None, cache)


def same_tables(one: Bundle, other: Bundle) -> bool:
    return all(
        files.catalog.table.equals(other.domains[name].catalog.table)
        and files.identifiers.flat.tolist() == other.domains[name].identifiers.flat.tolist()
        for name, files in one.domains.items()
    )
