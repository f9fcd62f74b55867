"""What a command writes is there as a whole or not at all, and never in the place of what it reads."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle.features import ItemFeatures, write_features
from model.bundle.tensors import write_tensors
from model.evaluation.report import Report
from service.cli.failures import FAILURE, WRONG_USAGE
from tests.commands import run
from tests.tiny import tiny_bundle
from tests.unit.evaluation.datasets import toys_dataset
from tests.unit.evaluation.test_comparison import report, result

OLD = b"an older file\n"
ROOM = 60  # bytes, fewer than any of these files has


@contextmanager
def full_disk() -> Iterator[None]:
    """The system lets no file grow, much as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what commands read, and an empty one for what they write."""
    toys_dataset().write(tmp_path / "data")
    report(result("A-3", 0.25)).write(tmp_path / "result.json")
    (tmp_path / "items.jsonl").write_text('{"item_id": "a", "title": "A rocket"}\n')
    write_features(tmp_path / "features", ItemFeatures(("a",), np.ones((1, 64), np.float32)))
    (tmp_path / "out").mkdir()
    return tmp_path


WRITERS: dict[str, Callable[[Path], list[object]]] = {
    "data tokenizer": lambda place: ["--data", place / "data", "--out"],
    "data additions": lambda place: ["--items", place / "items.jsonl", "--features", place / "features", "--out"],
    "compare": lambda place: [place / "result.json", "--out"],
    "compare with a plot": lambda place: [place / "result.json", "--plot"],
}


def words_of(name: str) -> list[str]:
    return name.partition(" with")[0].split()


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, link = place / "out" / "file.svg", place / "out" / "link.svg"
    out.write_bytes(OLD)
    link.symlink_to("file.svg")
    with full_disk():
        status = run(*words_of(name), *WRITERS[name](place), link)

    assert status == FAILURE
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: [Errno 27] File too large: '{out}'"
    assert out.read_bytes() == OLD
    assert sorted(path.name for path in out.parent.iterdir()) == ["file.svg", "link.svg"]

    assert run(*words_of(name), *WRITERS[name](place), link) == 0
    assert out.stat().st_size > ROOM
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["tensors", "report"])
def test_a_full_disk_is_an_error_of_the_system_in_each_format(name: str, place: Path) -> None:
    out = place / "out" / "file"
    out.write_bytes(OLD)
    tensors, made = {"a": torch.ones(100)}, Report.read(place / "result.json")
    with full_disk(), pytest.raises(OSError, match=r"out/file.*File too large|File too large.*out/file"):
        write_tensors(out, tensors) if name == "tensors" else made.write(out)
    assert out.read_bytes() == OLD
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("name", WRITERS)
def test_a_pipe_is_written_as_it_is(name: str, place: Path) -> None:
    out = place / "out" / "file.svg"
    out.symlink_to("/dev/null")

    assert run(*words_of(name), *WRITERS[name](place), out) == 0
    assert out.is_char_device()


@pytest.mark.parametrize(
    ("words", "files", "told"),
    [
        ("predict", {"--requests": "r.jsonl", "--out": "r.jsonl"}, "--out is {}/r.jsonl, which --requests reads"),
        ("predict", {"--requests": "r.jsonl", "--out": "link"}, "--out is {}/link, which --requests reads"),
        (
            "data additions",
            {"--items": "r.jsonl", "--features": "f", "--out": "f"},
            "--out is {}/f, which --features reads",
        ),
        (
            "features import",
            {"--features": ".", "--catalog": "f", "--out": "f"},
            "--out is {}/f, which --catalog reads",
        ),
        ("compare f", {"--out": "f"}, "--out is {}/f, which RESULT... reads"),
        ("compare f", {"--out": "new", "--plot": "../x/new"}, "--out is {}/new, which --plot writes"),
    ],
)
def test_what_is_read_is_not_written(
    words: str,
    files: dict[str, str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "x"
    place.mkdir()
    tiny_bundle(tmp_path)
    monkeypatch.chdir(place)
    for name in ("r.jsonl", "f"):
        Path(name).write_bytes(OLD)
    Path("link").symlink_to("r.jsonl")
    options = [each for option, name in files.items() for each in (option, place / name)]
    needed = ["--bundle", tmp_path / "bundle"] if words == "predict" else []

    assert run(*words.split(), *options, *needed) == WRONG_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {told.format(place)}; name another file"
    assert {path.name: path.read_bytes() for path in place.iterdir()} == dict.fromkeys(("r.jsonl", "f", "link"), OLD)
