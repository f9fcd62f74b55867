"""What a shell makes of `vip5`: its version, and the words that it completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.commands import run
from tests.e2e.processes import environment

BIN = Path(sys.executable).parent
BASH = shutil.which("bash")
COMPLETE = """
eval "$(_VIP5_COMPLETE=source_bash vip5)"
for words in "bundle " "bundle sh" "serve --eng" "serve --engine gr" "bundle show --bundle x --j" "features put --f"; do
    COMP_WORDS=(vip5 $words); [ "${words% }" = "$words" ] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _vip5_completion vip5
    echo "${COMPREPLY[*]}" | tr '\\n' ' '; echo
done
complete -p vip5
"""


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"vip5-serve {version('vip5-serve')}\n"


def in_bash(commands: str, **variables: str) -> str:
    """What bash prints, with `vip5` on its path."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [str(BASH), "--norc", "-c", commands],
        env=environment({"PATH": path, **variables}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_bash_completes_commands_options_and_choices() -> None:
    assert [line.strip() for line in in_bash(COMPLETE).splitlines()] == [
        "verify new-key sign show audit push pull index export-onnx",
        "show",
        "--engine",
        "graphs-float32 graphs-tfloat32 graphs-bfloat16",
        "--json",
        "--features",
        "complete -o default -F _vip5_completion vip5",  # where it knows nothing, bash completes paths
    ]


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    in_bash("vip5 --install-completion; :", HOME=str(tmp_path))
    told = in_bash("source ~/.bashrc; complete -p vip5", HOME=str(tmp_path))

    assert told == "complete -o default -F _vip5_completion vip5\n"
