"""The watch of served bundles' files names what changed, and reads a file again only if it may have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from model.bundle.bundle import open_bundle
from model.bundle.opened_file import OpenedFile
from service.versions.domains import Domains
from service.versions.file_watch import FileWatch
from tests.tiny import tiny_bundle

CATALOG = "domains/toys/catalog.parquet"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("watched"), num_items=20)


@pytest.fixture
def watch(root: Path) -> FileWatch:
    files = open_bundle(root).domains["toys"]
    version = SimpleNamespace(placed=SimpleNamespace(opened=SimpleNamespace(files=files)))
    domains = SimpleNamespace(items=lambda: [("toys", SimpleNamespace(with_traffic=[version]))])
    return FileWatch(cast("Domains", domains))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files whose digests were computed."""
    sizes: list[int] = []
    digest = OpenedFile.sha256

    def note(file: OpenedFile) -> str:
        sizes.append(file.size)
        return digest(file)

    monkeypatch.setattr(OpenedFile, "sha256", note)
    return sizes


async def test_untouched_files_are_not_read_again(watch: FileWatch, reads: list[int]) -> None:
    await watch.check()  # reads the manifest, whose signature is unknown
    reads.clear()
    await watch.check()
    assert (watch.problems, reads) == ([], [])
    await watch.check(is_thorough=True)
    assert (watch.problems, len(reads)) == ([], 9)


async def test_a_touched_file_is_read_once_and_is_no_problem(root: Path, watch: FileWatch, reads: list[int]) -> None:
    await watch.check()
    reads.clear()
    os.utime(root / CATALOG)
    await watch.check()
    await watch.check()
    assert (watch.problems, reads) == ([], [(root / CATALOG).stat().st_size])


def swap_with_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (lambda path: path.write_bytes(b""), "was changed"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "was changed"),
        (Path.unlink, "was removed"),
        (swap_with_a_folder, "cannot be read"),
    ],
)
async def test_a_change_is_named_and_logged_once_and_ends_when_the_file_is_back(
    root: Path, watch: FileWatch, fault: Callable[[Path], None], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = root / CATALOG
    content = path.read_bytes()
    fault(path)
    await watch.check()
    await watch.check()
    assert len(watch.problems) == 1
    assert f"the bundle {root.name} on disk is not the one that is served: {CATALOG} {text}" in watch.problems[0]
    assert [record.message for record in caplog.records] == ["bundle_file_changed"]
    if path.is_dir():
        path.rmdir()
    path.write_bytes(content)
    await watch.check()
    assert watch.problems == []


async def test_a_change_that_leaves_no_trace_in_the_file_system_is_found_by_a_thorough_check(
    root: Path, watch: FileWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watch.check()
    monkeypatch.setattr(OpenedFile, "sha256", lambda _: "0" * 64)  # bytes that decayed
    await watch.check()
    assert watch.problems == []
    await watch.check(is_thorough=True)
    assert "backbone/config.json was changed" in watch.problems[0]
    assert "and 6 more" in watch.problems[0]
    monkeypatch.undo()
    await watch.check(is_thorough=True)
    assert watch.problems == []
