"""What the README shows, on the demonstration that `make run` serves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from demo.make import Places
from demo.picture import ask
from model.bundle.bundle import open_bundle
from tests.conftest import ROOT
from tests.e2e.processes import PATIENCE_S, run_vip5, serving

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMONSTRATION = ROOT / "demo" / "bundle"
PICTURE = ROOT / "docs" / "pictures" / "demonstration.png"


def test_the_readmes_requests_have_the_readmes_answers(tmp_path: Path) -> None:
    bodies, shown = _bodies(), _answer()
    requests = [
        {"task": "sequential", **bodies["/recommend/sequential"]},
        {"task": "explanation", **bodies["/explain"]},
    ]
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("".join(json.dumps(request) + "\n" for request in requests))
    outcome = run_vip5("predict", "--bundle", DEMONSTRATION, "--requests", asked, "--out", answered)
    assert outcome.returncode == 0, outcome.stderr
    answer, explanation = map(json.loads, answered.read_text().splitlines())
    assert [_without_score(item) for item in answer["items"]] == [_without_score(item) for item in shown["items"]]
    for item, shown_item in zip(answer["items"], shown["items"], strict=True):
        assert item["score"] == pytest.approx(shown_item["score"], abs=1e-3)
    for name in ("exact_prefix", "num_beams_effective", "degraded", "domain", "bundle"):
        assert answer[name] == shown[name], name
    assert answer.keys() - {"task"} == shown.keys()
    assert f"the `text` “{explanation['text']}”" in README


def test_the_picture_shows_what_the_demonstration_answers() -> None:
    with Image.open(PICTURE, formats=["PNG"]) as picture:
        shown = json.loads(picture.info["answers"])
    rows = ask(Places(DEMONSTRATION))
    assert shown == json.loads(json.dumps([asdict(row) for row in rows]))
    domains = open_bundle(DEMONSTRATION).domains
    for row in rows:
        catalog = domains[row.domain].catalog
        traits = catalog.attributes(catalog.item_ids.index(row.recommended[0]))
        assert {str(traits[name]) for name in ("colour", "pattern", "style")} & set(row.explanation.split())
    assert PICTURE.stat().st_size < 300_000


def test_every_folder_that_is_named_exists() -> None:
    named = re.findall(r"\b(?:service|model)/\w+|\bfeature_cache\b", README)
    assert "service/answering" in named
    assert [name for name in named if not (ROOT / name).is_dir()] == []


def test_a_new_item_is_recommended_by_the_next_request(tmp_path: Path) -> None:
    command = re.search(r"^\.venv/bin/python (-m demo\.new_item .*) > new\.json$", README, re.MULTILINE)
    assert command is not None
    drawn = subprocess.run(
        [sys.executable, *command[1].split()], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    change = json.loads(drawn.stdout)
    (row,) = change["add"]
    assert "index" not in row
    headers = {"Authorization": "Bearer open-sesame-open-sesame"}
    settings = {"VIP5_ADMIN_TOKEN": "open-sesame-open-sesame", "VIP5_JOURNAL": str(tmp_path / "journal")}
    with serving(DEMONSTRATION, settings) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        changed = client.patch("/admin/domains/garments/catalog", json=change, headers=headers).json()
        body = _bodies()["/recommend/sequential"]
        items = client.post("/recommend/sequential", json=body).json()["items"]
    index = changed["indices"][row["item_id"]]
    place = [item["item_id"] for item in items].index(row["item_id"])
    assert f"`{json.dumps({row['item_id']: index})}`" in README
    assert f"the {row['title']} {('first', 'second')[place]}" in README


def test_shares_are_those_of_the_demonstration_s_readme() -> None:
    text = (ROOT / "demo" / "README.md").read_text(encoding="utf-8")
    rows = {
        domain: re.findall(rf"^\| {domain} \| prompts with pictures \|(.*)\|$", text, re.MULTILINE)
        for domain in ("toys", "garments")
    }
    for table, column in ((0, 0), (0, 1), (1, 0), (1, 2)):  # HR@5, of new items; explanations that are true, as asked
        toys, garments = (_percent(rows[domain][table], column) for domain in ("toys", "garments"))
        assert f"{toys} % (toys) and {garments} % (garments)" in " ".join(README.split())


def _percent(row: str, column: int) -> int:
    return round(100 * float(row.split("|")[column].split(maxsplit=1)[0]))


def test_times_are_those_of_the_results() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    measured = {round(float(time)) for time in re.findall(r"\| ([\d.]+) ms \|", results)}
    shown = re.findall(r"\| (\d+) ms \|", README)
    assert shown
    assert {int(time) for time in shown} <= measured


def _bodies() -> dict[str, dict[str, Any]]:
    """The bodies that the README sends to the demonstration, by path."""
    return {path: json.loads(body) for path, body in re.findall(r":8000(/\S+) .*?-d '(\{.*?\})'", README, re.DOTALL)}


def _answer() -> dict[str, Any]:
    match = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert match is not None
    answer: dict[str, Any] = json.loads(match[1])
    return answer


def _without_score(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "score"}
