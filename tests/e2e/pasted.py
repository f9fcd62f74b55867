"""Commands of a page, run in this process where that is possible, which saves the time to import libraries."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from pathlib import Path

from tests.commands import run
from tests.e2e.processes import PATIENCE_S, environment


def blocks_of(page: Path) -> list[list[str]]:
    """The blocks of commands of a page, each a list of lines that a shell would run one by one."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [[line for line in block.replace("\\\n", " ").splitlines() if line.strip()] for block in blocks]


def paste(line: str, *more: str, url: str = "http://127.0.0.1:8000") -> str:
    """Run a line in the current folder, with more options; returns what a tool other than `vip5` prints.

    `url` is where the service is that the page has on port 8000.
    """
    program, *arguments = shlex.split(line)
    if program == ".venv/bin/vip5":
        assert run(*arguments, *more) == 0, line
        return ""
    if program == ".venv/bin/python":
        option, module, *rest = arguments
        assert option == "-m"
        assert importlib.import_module(module).main([*rest, *more]) == 0
        return ""
    assert not more
    script = line.replace("http://127.0.0.1:8000", url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout
