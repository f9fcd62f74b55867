"""The committed dashboard is the generated one, complete, and about metrics that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase

from deploy.grafana.dashboard import FILE, OF_ALL_DOMAINS, ROWS, build
from deploy.grafana.panels import WITH_DOMAIN, WITH_ROUTE
from service.observability.metrics import Metrics, families

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


def test_the_dashboard_can_be_narrowed() -> None:
    variables = json.loads(FILE.read_text())["templating"]["list"]

    assert [variable["name"] for variable in variables] == ["datasource", "job", "instance", "domain", "route"]
    for variable in variables[1:]:
        assert names_in(variable["query"]) <= metric_names()


def metrics_with(label: str) -> set[str]:
    """Names of the metrics that have the label."""
    registry = CollectorRegistry()
    for kind in vars(families).values():
        if isinstance(kind, type) and kind.__module__ == families.__name__:
            kind(registry)
    return {
        f"{each._name}_total" if isinstance(each, Counter) else each._name
        for each in registry._collector_to_names
        if isinstance(each, MetricWrapperBase) and label in each._labelnames
    }


def selectors_in(expr: str) -> list[tuple[str, str]]:
    """Names of metrics in a query, and what stands in the braces after them."""
    found = re.findall(r"(?<![:\w])((?:vip5|process)_\w+)(?:\{([^}]*)\})?", expr)
    return [(re.sub(r"_(bucket|sum|count)$", "", name), chosen) for name, chosen in found]


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_every_query_follows_the_variables_that_all_its_metrics_have(panel: dict[str, Any]) -> None:
    for expr in (target["expr"] for target in panel["targets"]):
        selectors = selectors_in(expr)
        assert selectors
        for variable in ("job", "instance"):
            assert all(f'{variable}=~"${variable}"' in chosen for _, chosen in selectors), expr
        for variable, having in (("domain", WITH_DOMAIN), ("route", WITH_ROUTE)):
            is_followed = all(name in having for name, _ in selectors)
            for _, chosen in selectors:
                assert (f'{variable}=~"${variable}"' in chosen) is is_followed, expr


def test_the_metrics_with_a_domain_or_a_route_are_these() -> None:
    assert metrics_with("domain") == WITH_DOMAIN
    assert metrics_with("route") == WITH_ROUTE


def test_a_panel_says_that_it_does_not_follow_the_domain() -> None:
    for panel in panels():
        is_of_domain = "$domain" in str(panel["targets"])
        assert panel["description"].endswith(OF_ALL_DOMAINS) is not is_of_domain, panel["title"]


def test_every_panel_has_an_id_and_shows_what_no_other_does() -> None:
    document = json.loads(FILE.read_text())
    ids = [panel["id"] for panel in document["panels"]]
    exprs = [target["expr"] for panel in panels() for target in panel["targets"]]

    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    assert len(set(exprs)) == len(exprs)


def test_traces_of_single_requests_are_shown_with_the_latency() -> None:
    shown = {panel["title"] for panel in panels() for target in panel["targets"] if target["exemplar"]}
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    (destination,) = source["datasources"][0]["jsonData"]["exemplarTraceIdDestinations"]

    assert shown == {"Latency p50", "Latency p95", "Latency p99"}
    assert destination["name"] == "trace_id", "the name that the service gives"


def test_changes_and_alerts_are_marked() -> None:
    marks = json.loads(FILE.read_text())["annotations"]["list"]

    assert [mark["name"] for mark in marks] == ["Changes of versions", "Alerts"]
    for mark in marks:
        assert mark["enable"]
        assert names_in(mark["expr"]) <= metric_names()
        assert 'job=~"$job"' in mark["expr"]


TYPES = """
import type { Dashboard } from '@grafana/schema';
type Written<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Written<T[K]> } : T;
type Annotation = NonNullable<NonNullable<Dashboard['annotations']>['list']>[number];
interface OfPrometheus {
  expr: string; step: string; titleFormat: string; textFormat: string; tagKeys?: string; useValueForTime?: 'on';
}
type Whole = Omit<Dashboard, 'annotations'> & { annotations: { list: Array<Annotation & OfPrometheus> } };
export const dashboard: Written<Whole> = """
"""Members of an enumeration are written as their values. Annotations have fields of their source."""


def test_the_dashboard_is_of_grafanas_types(tmp_path: Path) -> None:
    """Grafana's own types, from npm; GRAFANA_SCHEMA names a folder in which they are installed."""
    folder = Path(os.environ.get("GRAFANA_SCHEMA", ROOT / "node_modules"))
    compiler = folder / ".bin" / "tsc"
    if not compiler.exists() or not (folder / "@grafana" / "schema").exists():
        pytest.skip("Grafana's types are not installed: npm install --no-save @grafana/schema typescript")
    (tmp_path / "node_modules").symlink_to(folder.resolve())
    (tmp_path / "dashboard.ts").write_text(TYPES + FILE.read_text())
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command = [str(compiler), *options, "dashboard.ts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


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
