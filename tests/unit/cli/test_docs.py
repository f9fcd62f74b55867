"""docs/command-line.md names every command, and every spelling of old."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.cli.old_names import RENAMED
from tests.pages import PAGES, ROOT, name_of
from tests.unit.cli.command_tree import COMMANDS, Command

PAGE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_is_listed(command: Command) -> None:
    assert f"`vip5 {command}`" in PAGE


def test_every_earlier_spelling_is_listed_with_the_present_one() -> None:
    for command, names in RENAMED.items():
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `vip5 {command}` | `--"))
        for old, new in names.items():
            assert re.search(rf"`{old}( [A-Z]+)?`", row)
            assert re.search(rf"`{new}( [A-Z]+)?`", row)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_pages_show_have_the_options_that_they_are_shown_with(page: Path) -> None:
    """In blocks of code; a command goes on after a backslash at the end of a line."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        words = line.split("#")[0].split()
        places = [place for place, word in enumerate(words) if word in {"vip5", ".venv/bin/vip5"}]
        if not places or words[0] == "kubectl":  # whose objects may be called so
            continue
        words = words[places[0] + 1 :]
        fitting = [each for each in COMMANDS if each.words == tuple(words[: len(each.words)])]
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        if not fitting:
            assert given <= {"--help", "--version", "--install-completion", "--show-completion"}, line
            continue
        assert given <= {option.name for option in fitting[0].options}, line
