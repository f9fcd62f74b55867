"""What the README shows, on the demonstration that `make run` serves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e.processes import run_vip5

README = (ROOT / "README.md").read_text(encoding="utf-8")


DEMONSTRATION = ROOT / "demo" / "bundle"


def test_the_readmes_request_has_the_readmes_answer(tmp_path: Path) -> None:
    request, shown = _request(), _answer()
    (tmp_path / "in.jsonl").write_text(json.dumps({"task": "sequential", **request}))
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    outcome = run_vip5("predict", "--bundle", DEMONSTRATION, "--requests", asked, "--out", answered)
    assert outcome.returncode == 0, outcome.stderr
    answer = json.loads(answered.read_text())
    assert [_without_score(item) for item in answer["items"]] == [_without_score(item) for item in shown["items"]]
    for item, shown_item in zip(answer["items"], shown["items"], strict=True):
        assert item["score"] == pytest.approx(shown_item["score"], abs=1e-3)
    for name in ("exact_prefix", "num_beams_effective", "degraded", "domain", "bundle"):
        assert answer[name] == shown[name], name
    assert answer.keys() - {"task"} == shown.keys()


def _request() -> dict[str, Any]:
    match = re.search(r"-d '(\{.*?\})'", README, re.DOTALL)
    assert match is not None
    body: dict[str, Any] = json.loads(match[1])
    return body


def _answer() -> dict[str, Any]:
    match = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert match is not None
    answer: dict[str, Any] = json.loads(match[1])
    return answer


def _without_score(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "score"}
