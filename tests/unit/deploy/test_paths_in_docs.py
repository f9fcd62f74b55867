"""Files and folders that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, name_of

FOLDERS = (
    *("service", "model", "feature_cache", "quiet_libraries", "vip5"),
    *("deploy", "tests", "benchmarks", "docs", "demo", "examples"),
)
NAMED = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./*\[\]-]*)`")
MADE = ("demo/bundle-work",)  # by commands, not committed


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return  # tells of the past too
    named = NAMED.findall(document.read_text(encoding="utf-8"))
    missing = [name for name in named if not any(ROOT.glob(name.rstrip("/"))) and not name.startswith(MADE)]

    assert not missing


def test_the_architecture_names_a_file_for_every_step_of_a_request() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    life = text.partition("## The life of a request")[2].partition("\n## ")[0]
    steps = re.split(r"\n(?=\d\. )", life)[1:]

    assert len(steps) <= 8
    assert all(NAMED.search(step) for step in steps[:-1])
