"""The commands of docs/api.md, pasted one after another, print the answers that the page shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.answers import answer_like
from tests.e2e.processes import PATIENCE_S, PROCESSES, ROOT, environment, serving
from tests.summer import DEMONSTRATION, add_summer

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SHOWN = [
    (command, answer)
    for (kind, command), (following, answer) in pairwise(BLOCKS)
    if kind == "sh" and "curl" in command and following in {"json", "text"}
]
ADDRESS = "localhost:8000"
TOKEN = "open-sesame-open-sesame"
END = "=== end of a block ==="


def documents_of(text: str) -> Iterator[object]:
    """JSON documents, or the data of server-sent events with their names."""
    events = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    if events:
        yield from ({"event": name, "data": json.loads(data)} for name, data in events)
        return
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


def test_the_page_s_commands_print_the_page_s_answers(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl not found: install it from the system's packages")
    assert len(SHOWN) == sum("curl" in block for _, block in BLOCKS), "each has an answer below it"
    # A service with workers keeps histories in Redis only.
    examples = [each for each in SHOWN if not (PROCESSES.num_workers and "/events" in each[0])]
    add_summer(tmp_path)
    settings = {
        "VIP5_ADMIN_TOKEN": TOKEN,
        "VIP5_BUNDLES_ROOT": str(tmp_path),
        "VIP5_JOURNAL": str(tmp_path / "journal"),
    }
    if not PROCESSES.num_workers:
        settings |= {"VIP5_HISTORY_STORE": "embedded", "VIP5_HISTORY_FILE": str(tmp_path / "histories")}
    with serving(DEMONSTRATION, settings) as server:
        script = f"echo '{END}'\n".join(command for command, _ in examples)
        pasted = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, server.url.removeprefix("http://"))],
            cwd=tmp_path,
            env=environment({"VIP5_ADMIN_TOKEN": TOKEN}),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert pasted.returncode == 0, pasted.stderr
    for (command, shown), printed in zip(examples, pasted.stdout.split(END), strict=True):
        answers = list(documents_of(printed))
        assert answers, command
        assert answers == answer_like(list(documents_of(shown)), answers), command
