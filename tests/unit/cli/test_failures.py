"""One kind of mistake has one exit status, and one line on standard error, in whichever command it is made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from service.cli.failures import FAILURE, WRONG_USAGE
from tests.clips import draw_folder
from tests.commands import run
from tests.e2e.processes import environment
from tests.tiny import tiny_bundle, tiny_checkpoint, tiny_tokenizer
from tests.unit.cli.command_tree import COMMANDS, Command
from tests.unit.evaluation.datasets import toys_dataset
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run

REDIS = ("--redis-url", "redis://127.0.0.1:1")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIP5_BUNDLE", "VIP5_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a dataset, a checkpoint, and what is none of them."""
    root = tmp_path_factory.mktemp("mistakes")
    tiny_bundle(root)
    toys_dataset().write(root / "data")
    tiny_checkpoint().save(root)
    tiny_tokenizer().save(str(root / "tokenizer.json"))
    (root / "items.jsonl").write_text('{"item_id": "a", "index": "1"}\n{"item_id": "b", "index": "2"}\n')
    (root / "requests.jsonl").write_text("{}\n")
    (root / "lines.txt").write_text("1 1 2 3\n")
    (root / "broken").write_text("broken\n")
    (root / "empty").mkdir()
    return root


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status and the one line on standard error."""
    status = run(*arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return status, line.removeprefix("error: ")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_an_unknown_option_is_wrong_usage(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = told(capsys, *command.words, "--colour", "blue")

    assert status == WRONG_USAGE
    assert line.startswith("no such option: --colour")
    assert line.endswith(f"; see vip5 {command} --help")


@pytest.mark.parametrize("words", [["bogus"], ["bundle", "bogus"], ["data", "prepare", "bogus"]])
def test_an_unknown_command_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    group = " ".join(["vip5", *words[:-1]])

    assert told(capsys, *words) == (WRONG_USAGE, f"no such command 'bogus'; see {group} --help")


@pytest.mark.parametrize("command", [each for each in COMMANDS if str(each) != "serve"], ids=str)
def test_a_missing_option_is_wrong_usage(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = told(capsys, *command.words)

    assert status == WRONG_USAGE
    assert "missing" in line or "give " in line


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_path_that_does_not_exist_is_wrong_usage(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for option in command.options:
        if option.info.exists:
            status, line = told(capsys, *command.words, option.name, "/does/not/exist")

            assert status == WRONG_USAGE
            assert line.startswith(f"invalid value for '{option.name}'")
            assert "'/does/not/exist' does not exist" in line


@pytest.mark.parametrize(("name", "value"), [("--device", "tpu"), ("--num-threads", "0"), ("--engine", "steam")])
def test_a_bad_value_is_wrong_usage(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        if name in {option.name for option in command.options}:
            status, line = told(capsys, *command.words, name, value)

            assert status == WRONG_USAGE
            assert line.startswith(f"invalid value for '{name}'")


def of_bundle(bundle: Path, place: Path) -> dict[str, list[object]]:
    """Every command that reads a bundle, with what else it needs."""
    named = ["--bundle", bundle]
    measured = [*named, "--domain", "toys", "--data", place / "data"]
    answered = [*named, "--requests", place / "requests.jsonl", "--out", place / "answers.jsonl"]
    of_redis = [*named, "--domain", "toys", *REDIS]
    return {
        "predict": answered,
        "bench": named,
        "evaluate": measured,
        "bundle verify": named,
        "bundle show": named,
        "bundle audit": measured,
        "bundle index": [*named, "--index-cache", place / "indexes"],
        "bundle export-onnx": [*named, "--out", place / "exported"],
        "features load": of_redis,
        "features verify": of_redis,
        "features put": [*of_redis, "--item-id", "a", "--features", place / "broken"],
        "features versions": of_redis,
        "features drop": [*of_redis, "--version", "x"],
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused_by_every_command(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = write_run(place, FROM_SCRATCH)
    draw_folder(place / "pictures", 1)
    (place / "sweep.toml").write_text('base = "run.toml"\nout = "sweep"\n[[variants]]\nname = "one"\n')
    asked = of_bundle(place / "bundle", place) | {
        "serve": ["--bundle", place / "bundle", "--port", "0"],
        "train": ["--config", run_file],
        "sweep": ["--config", place / "sweep.toml"],
        "features encode": [
            "--model",
            place / "empty",
            "--encoder",
            "x",
            "--images",
            place / "pictures",
            "--out",
            place / "f",
        ],
    }
    with_device = {str(each) for each in COMMANDS if any(option.name == "--device" for option in each.options)}
    for words in with_device:
        status = run(*words.split(), *asked[words], "--device", "cuda:7")
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "error: " in each]

        assert (words, status) == (words, FAILURE)
        assert "cuda:7" in line
    assert not (place / "sweep").exists()


def test_what_is_no_bundle_is_a_failure(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, options in of_bundle(place / "empty", place).items():
        status, line = told(capsys, *words.split(), *options)

        assert (words, status) == (words, FAILURE)
        assert "manifest.json" in line


def test_an_unknown_domain_is_wrong_usage(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, options in of_bundle(place / "bundle", place).items():
        if "--domain" in options:
            status, line = told(capsys, *words.split(), *options, "--domain", "books")

            assert (words, status) == (words, WRONG_USAGE)
            assert "has no domain 'books'; it has" in line


def test_a_place_that_is_taken_is_wrong_usage(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, bundle, items = place / "data", place / "bundle", place / "items.jsonl"
    imported = ["--checkpoint", place / "tiny.pth", "--config", place / "tiny.json", "--catalog", items]
    for arguments in (
        ["import", "vip5", *imported, "--domain", "toys", "--out", bundle],
        ["bundle", "export-onnx", "--bundle", bundle, "--out", data],
        ["data", "prepare", "lines", "--sequences", place / "lines.txt", "--out", data],
        ["data", "prepare", "lines", "--sequences", place / "lines.txt", "--out", bundle, "--replace"],
        ["data", "index", "--data", data, "--method", "random", "--out", data],
    ):
        status, line = told(capsys, *arguments)

        assert status == WRONG_USAGE
        assert any(word in line for word in ("already", "exists", "holds"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VIP5_PROT", "1", "unknown setting VIP5_PROT"),
        ("VIP5_PORT", "99999", "(VIP5_PORT) is '99999'"),
        ("VIP5_REDIS_URL", "http://host", "(VIP5_REDIS_URL) is not valid"),
        ("VIP5_BUNDLE", "/does/not/exist", "setting bundle (VIP5_BUNDLE) is '/does/not/exist', which does not exist"),
        ("VIP5_BEAM_TABLE", "/does/not/exist", "VIP5_BEAM_TABLE"),
        ("VIP5_API_KEYS_FILE", "/does/not/exist", "(VIP5_API_KEYS_FILE) is '/does/not/exist', which does not exist"),
    ],
)
def test_a_bad_setting_is_wrong_usage(
    name: str,
    value: str,
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VIP5_BUNDLE", str(place / "bundle"))
    monkeypatch.setenv(name, value)
    for arguments in (
        ["serve", "--port", "0"] if name != "VIP5_PORT" else ["serve"],
        ["predict", "--requests", place / "requests.jsonl", "--out", place / "answers.jsonl"],
    ):
        status, line = told(capsys, *arguments)

        assert status == WRONG_USAGE
        assert words in line


def test_a_redis_is_wrong_usage_by_its_address_and_a_failure_where_it_does_not_answer(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["features", "versions", "--bundle", place / "bundle", "--domain", "toys", "--redis-url"]

    assert told(capsys, *options, "http://host")[0] == WRONG_USAGE
    assert told(capsys, *options, "redis://127.0.0.1:1")[0] == FAILURE


def test_a_file_that_breaks_a_rule_is_a_failure(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = place / "broken"
    for arguments in (
        ["train", "--config", broken],
        ["sweep", "--config", broken],
        ["compare", broken],
        ["data", "show", "--data", place / "empty"],
        ["data", "tokenizer", "--data", place / "empty", "--out", place / "tokenizer.json"],
        ["data", "prepare", "lines", "--sequences", broken, "--out", place / "new"],
        ["data", "prepare", "vip5", "--folder", place / "empty", "--out", place / "new"],
        ["data", "prepare", "amazon-raw", "--reviews", broken, "--out", place / "new"],
        ["import", "t5", "--model", place / "empty", "--out", place / "new"],
        ["features", "import", "--features", place / "empty", "--catalog", broken, "--out", place / "new"],
        ["features", "encode", "--model", place / "empty", "--encoder", "x", "--images", place, "--out", place / "f"],
    ):
        assert (arguments, told(capsys, *arguments)[0]) == (arguments, FAILURE)


WITHOUT_EXTRAS = """
import json, sys
from service.cli.failures import EXTRAS
sys.modules.update(dict.fromkeys([*EXTRAS, "onnxscript", "ray", "open_clip"]))
from service.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as error:
        print("exits", error.code, file=sys.stderr)
"""


def test_where_an_extra_is_missing_each_command_names_it(place: Path) -> None:
    named: list[str | Path] = ["--bundle", place / "bundle", "--domain", "toys", "--data", place / "data"]
    encoded: list[str | Path] = ["--model", place / "empty", "--encoder", "x", "--out", place / "out"]
    needed: dict[str, list[str | Path]] = {
        "train": ["--config", place / "broken"],
        "sweep": ["--config", place / "broken"],
        "evaluate": named,
        "compare": [place / "broken"],
        "data index": ["--data", place / "data", "--method", "random", "--out", place / "out"],
        "features encode": [*encoded, "--images", place],
        "features export-onnx": encoded,
        "bundle new-key": ["--out", place / "out"],
    }
    run_all = json.dumps([[*words.split(), *map(str, options)] for words, options in needed.items()])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, run_all], env=environment(), capture_output=True, text=True, check=True
    )

    lines = done.stderr.splitlines()
    assert lines[1::2] == ["exits 1"] * len(needed)
    for words, line in zip(needed, lines[::2], strict=True):
        extra = {"features": "encode", "bundle": "signing"}.get(words.split()[0], "train")
        assert line.startswith("error: "), line
        assert f"pip install 'vip5-serve[{extra}]'" in line


def test_an_interrupt_is_130_and_a_bug_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: str, **__: object) -> None:
        raise KeyboardInterrupt

    def fail(_: str, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("service.http.api_keys.new_key", interrupt)
    assert run("keys", "new", "--id", "shop") == 130
    monkeypatch.setattr("service.http.api_keys.new_key", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("keys", "new", "--id", "shop")
    assert capsys.readouterr().err == ""


def test_where_a_folder_is_missing_to_write_into_it_is_made(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, answers = tmp_path / "a" / "tokenizer.json", tmp_path / "b" / "answers.jsonl"

    assert run("data", "tokenizer", "--data", place / "data", "--out", tokenizer) == 0
    named = ["--bundle", place / "bundle", "--requests", place / "requests.jsonl"]
    assert run("predict", *named, "--out", answers) == 0
    assert tokenizer.is_file()
    assert answers.is_file()
    assert capsys.readouterr().err.startswith("0 answered, 1 failed")
