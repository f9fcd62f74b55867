"""The committed dashboard is the generated one, complete, and about metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.dashboard import FILE, ROWS, build
from service.observability.metrics import Metrics

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
NEEDS_A_GPU = {"vip5_gpu_memory_bytes"}
FOR_ALERTS_ONLY = {"vip5_redis_configured", "vip5_last_reload_success"}


def names_in(text: str) -> set[str]:
    """Names of metrics; what a rule records has colons and is none."""
    found = re.findall(r"(?<![:\w])(?:vip5|process)_\w+(?![:\w])", text)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def metric_names() -> set[str]:
    text = Metrics().render().content.decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) | NEEDS_A_GPU


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(FILE.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def test_the_committed_dashboard_is_what_the_code_makes() -> None:
    assert FILE.read_text() == build(), "run python -m deploy.grafana.dashboard"


def test_every_panel_of_the_list_is_on_the_dashboard() -> None:
    assert [panel["title"] for panel in panels()] == [panel.title for row in ROWS for panel in row.panels]


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_no_two_panels_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(FILE.read_text())["panels"]]
    for a, b in combinations(places, 2):
        is_beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        is_above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert is_beside or is_above, (a, b)


def test_the_dashboard_can_be_narrowed_to_a_domain_and_a_route() -> None:
    variables = json.loads(FILE.read_text())["templating"]["list"]

    assert [variable["name"] for variable in variables] == ["datasource", "domain", "route"]
    assert "$domain" in FILE.read_text()
    assert "$route" in FILE.read_text()


def test_every_metric_is_on_a_panel() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in names_in(target["expr"])}

    assert {name for name in metric_names() if name.startswith("vip5_")} - shown == FOR_ALERTS_ONLY


@pytest.mark.parametrize("file", [FILE, *RULES], ids=lambda file: file.name)
def test_panels_and_rules_name_no_metric_that_does_not_exist(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    rules = [rule for group in document.get("groups", ()) for rule in group["rules"]]
    exprs = [rule["expr"] for rule in rules] or [target["expr"] for panel in panels() for target in panel["targets"]]

    assert exprs
    assert {name for expr in exprs for name in names_in(expr)} <= metric_names()
