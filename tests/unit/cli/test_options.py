"""Options are called the same everywhere, and old spellings still work."""

from __future__ import annotations

import inspect
from collections import defaultdict
from pathlib import Path

import pytest

from service.cli.old_names import BY_POSITION, RENAMED
from tests.commands import run
from tests.unit.cli.command_tree import COMMANDS, Command

DEFINED_ONCE = {"--device", "--domain", "--engine", "--json", "--num-threads", "--replace", "--restart"}
OLD_NAMES = [
    ("bench", "--requests", "--num-requests"),
    ("bench", "--write", "--out"),
    ("evaluate", "--users", "--num-users"),
    ("evaluate", "--text-only", "--without-images"),
    ("features put", "--feature", "--features"),
    ("features import", "--folder", "--features"),
]
ARGUMENTS_ONCE = [
    ("bundle verify", "--bundle"),
    ("bundle show", "--bundle"),
    ("bundle export-onnx", "--bundle"),
    ("data show", "--data"),
]
GROUPS = ["", "import", "bundle", "features", "keys", "data", "data prepare"]


def test_the_commands_are_found() -> None:
    assert {"serve", "bundle show", "data prepare lines", "features encode", "keys new"} <= {*map(str, COMMANDS)}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_has_help_with_an_example(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.words, "-h") == 0
    short = capsys.readouterr().out
    assert run(*command.words, "--help") == 0
    assert capsys.readouterr().out == short
    assert f"Example: vip5 {command}" in short


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_paragraphs_of_help_fill_the_line(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert run(*command.words, "--help") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]

    for paragraph in (inspect.getdoc(command.callback) or "").split("\n\n"):
        assert " ".join(paragraph.split()) in lines


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_help_and_shows_it_by_itself(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*group.split(), "-h") == 0
    short = capsys.readouterr().out
    assert run(*group.split(), "--help") == 0
    assert capsys.readouterr().out == short
    assert run(*group.split()) == 2
    captured = capsys.readouterr()
    assert captured.out.split() == short.split()
    assert captured.err == ""


def test_an_option_has_one_type_everywhere() -> None:
    types = defaultdict(set)
    for command in COMMANDS:
        for option in command.options:
            types[option.name].add(str(option.type))

    del types["--workers"]  # a number, and of `vip5 serve` also `auto`
    del types["--bundle"]  # a folder, and of what serves also a URL
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", sorted(DEFINED_ONCE))
def test_what_many_commands_have_is_defined_once(name: str) -> None:
    found = [option for command in COMMANDS for option in command.options if option.name == name]

    assert len(found) > 1
    assert len({(option.info.help, option.info.min, option.info.callback) for option in found}) == 1


def test_every_path_to_read_must_exist_and_every_option_is_explained() -> None:
    for command in COMMANDS:
        for option in command.options:
            assert option.info.help, f"{command} {option.name}"
            is_written = option.name in {
                "--out",
                "--report",
                "--downloads",
                "--plot",
                "--unix-socket",
                "--index-cache",
                "--to",
            }
            if option.type is Path:
                assert option.info.exists is not is_written, f"{command} {option.name}"


@pytest.mark.parametrize(("command", "old", "new"), OLD_NAMES)
def test_an_old_name_is_accepted_and_not_shown(
    command: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = (each for each in COMMANDS if str(each) == command)
    present = {option.name for option in found.options}
    assert new in present
    assert old not in present
    for spelling in ([old, "/does/not/exist"], [f"{old}=/does/not/exist"]):
        run(*found.words, *spelling)
        told = capsys.readouterr().err
        run(*found.words, *(part.replace(old, new) for part in spelling))
        assert capsys.readouterr().err == told
        assert "no such option" not in told


def test_no_old_name_is_accepted_that_never_was_one() -> None:
    assert {(command, *names) for command, renamed in RENAMED.items() for names in renamed.items()} == {*OLD_NAMES}
    assert {*BY_POSITION.items()} == {*ARGUMENTS_ONCE}


@pytest.mark.parametrize(("command", "option"), ARGUMENTS_ONCE)
def test_a_value_may_stand_by_itself(
    command: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    rest = ["--out", tmp_path / "a"] if command.endswith("export-onnx") else []
    status = run(*command.split(), option, tmp_path / "a", *rest)
    told = capsys.readouterr().err
    assert run(*command.split(), tmp_path / "a", *rest) == run(*command.split(), *rest, tmp_path / "a") == status
    assert capsys.readouterr().err == told * 2
    assert run(*command.split(), "/does/not/exist", *rest) == 2
    assert f"invalid value for '{option}'" in capsys.readouterr().err
    assert run(*command.split(), option, tmp_path, tmp_path, *rest) == 2
    assert "unexpected extra argument" in capsys.readouterr().err
