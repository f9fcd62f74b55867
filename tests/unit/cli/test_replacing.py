"""What exists is replaced with --replace, or where a person at a terminal agrees: one rule for all commands."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from service.cli.failures import WRONG_USAGE
from tests.commands import run
from tests.e2e.processes import COMMAND, PATIENCE_S, environment
from tests.tiny import tiny_bundle, tiny_checkpoint, tiny_tokenizer
from tests.unit.bundle.test_import_t5 import saved, t5
from tests.unit.cli.command_tree import COMMANDS
from tests.unit.evaluation.datasets import toys_dataset
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def writers(place: Path) -> dict[str, tuple[Path, list[object]]]:
    """Every command that makes a folder: what it makes, and its options, with which it succeeds in an empty place."""
    data, bundle, t5_bundle, exported = (place / name for name in ("data", "bundle", "t5-bundle", "exported"))
    imported = ["--checkpoint", place / "tiny.pth", "--config", place / "tiny.json", "--tokenizer", place]
    imported += ["--catalog", place / "items.jsonl", "--domain", "toys", "--out", bundle]
    return {
        "import vip5": (bundle, imported),
        "import t5": (t5_bundle, ["--model", place / "t5", "--out", t5_bundle]),
        "train": (place / "trained" / "bundle", ["--config", place / "trained" / "run.toml", "--num-threads", "1"]),
        "bundle export-onnx": (exported, ["--bundle", place / "source", "--out", exported]),
        "data prepare lines": (data, ["--sequences", place / "lines.txt", "--out", data]),
        "data index": (data, ["--data", place / "toys", "--method", "random", "--out", data]),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("replacing")
    tiny_bundle(root).rename(root / "source")
    toys_dataset().write(root / "toys")
    tiny_checkpoint().save(root)
    tiny_tokenizer().save(str(root / "tokenizer.json"))
    saved(root / "t5", t5())
    (root / "items.jsonl").write_text('{"item_id": "a", "index": "1"}\n{"item_id": "b", "index": "2"}\n')
    (root / "lines.txt").write_text("1 1 2 3\n2 3 2 1\n")
    (root / "trained").mkdir()
    write_run(root / "trained", FROM_SCRATCH.replace("steps = 6", "steps = 1"))
    return root


def test_every_command_with_replace_is_tried() -> None:
    with_replace = {str(command) for command in COMMANDS if any(each.name == "--replace" for each in command.options)}
    alike = {"data prepare vip5", "data prepare amazon-raw", "import p5"}  # they share code with their neighbours
    alike |= {each for each in with_replace if each.startswith("data prepare ")}
    assert {*writers(Path()), *alike, "sweep"} == with_replace  # tests/unit/training/test_sweep.py


def test_what_exists_is_refused_and_kept_and_then_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, (made, options) in writers(place).items():
        if not made.exists():
            assert run(*words.split(), *options) == 0, (words, capsys.readouterr().err)
        before = contents(made)
        capsys.readouterr()

        assert run(*words.split(), *options) == WRONG_USAGE, words
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(", or give --replace"), (words, line)
        assert contents(made) == before, words

        assert run(*words.split(), *options, "--replace") == 0, (words, capsys.readouterr().err)


def test_what_failed_leaves_what_was_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for module in ("model.bundle.writer", "model.engine.onnx.export", "model.bundle.folders"):
        monkeypatch.setattr(f"{module}.publish", fail)
    for words, (made, options) in writers(place).items():
        made.mkdir(parents=True, exist_ok=True)
        before, beside = contents(made), {path.name for path in made.parent.iterdir()}

        assert run(*words.split(), *options, "--replace") == 1, words
        assert "No space left" in capsys.readouterr().err
        assert contents(made) == before, words
        assert {path.name for path in made.parent.iterdir()} - {"work"} == beside - {"work"}, words


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", WRONG_USAGE), ("", WRONG_USAGE)])
def test_a_person_at_a_terminal_is_asked(answer: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("1 1 2 3\n")
    toys_dataset().write(tmp_path / "data")
    before = contents(tmp_path / "data")
    options = ["data", "prepare", "lines", "--sequences", "lines.txt", "--out", "data"]
    master, slave = pty.openpty()
    try:
        os.write(master, f"{answer}\n".encode())
        done = subprocess.run(
            [*COMMAND, *options],
            cwd=tmp_path,
            env=environment(),
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            timeout=PATIENCE_S,
            check=False,
        )
        shown = os.read(master, 10_000).decode()
    finally:
        os.close(master)
        os.close(slave)

    assert "--out data holds a dataset. Replace it? [y/N]" in shown
    assert done.returncode == status
    assert (contents(tmp_path / "data") == before) == (status != 0)
