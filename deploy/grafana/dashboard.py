"""Generates dashboards/vip5.json from the panel definitions: python -m deploy.grafana.dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import Limit, PanelSpec, Query, RowSpec, series
from deploy.grafana.request_rows import ENGINE, LATENCIES, STAGES, TRAFFIC
from deploy.grafana.state_rows import BUNDLES, FEATURES, MACHINE, QUALITY, VERSIONS

ROWS = (LATENCIES, STAGES, TRAFFIC, ENGINE, FEATURES, QUALITY, VERSIONS, BUNDLES, MACHINE)
FILE = Path(__file__).parent / "dashboards" / "vip5.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GRID_WIDTH = 24
PANEL_HEIGHT = 8
OF_ALL_DOMAINS = " Of all domains."
"""Added to the description of panels that do not follow the variable `domain`."""


def build() -> str:
    """The dashboard in Grafana's JSON format."""
    made = (
        dashboard.Dashboard("vip5-serve")
        .uid("vip5-serve")
        .description("Traffic, latency, quality and versions of recommendations and explanations.")
        .tags(["vip5", "generated"])
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for label, name, of in VARIABLES:
        made.with_variable(_label_variable(label, name, of))
    for row in ROWS:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_panel(panel, row))
    return json.dumps(_finished(made.build()), indent=2, sort_keys=True) + "\n"


VARIABLES = (
    ("job", "Job", "vip5_num_requests_waiting"),
    ("instance", "Instance", 'vip5_num_requests_waiting{job=~"$job"}'),
    ("domain", "Domain", 'vip5_bundle_info{job=~"$job", instance=~"$instance"}'),
    ("route", "Route", 'vip5_requests_total{job=~"$job", domain!=""}'),
)
"""Labels, their names, and the series that have their values."""

ANNOTATIONS = (
    {
        "name": "Changes of versions",
        "expr": f"{series('vip5_epoch_started_timestamp_seconds')} * 1000",
        "useValueForTime": "on",
        "titleFormat": "Change",
        "textFormat": "{{instance}} serves a changed version",
        "iconColor": "blue",
    },
    {
        "name": "Alerts",
        "expr": 'ALERTS{alertstate="firing", alertname=~"Vip5.*", job=~"$job"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{domain}}",
        "tagKeys": "severity",
        "iconColor": "red",
    },
)
"""Queries of Prometheus whose results are marked in all panels."""


def _finished(made: Dashboard) -> dict[str, Any]:
    """As JSON, with what the builders have no words for: ids of panels, and annotations of Prometheus."""
    found: dict[str, Any] = json.loads(json.dumps(made, cls=JSONEncoder))
    for number, panel in enumerate(found["panels"], start=1):
        panel["id"] = number
    for variable in found["templating"]["list"]:
        for field in ("auto", "auto_count", "auto_min"):  # of intervals only
            variable.pop(field, None)
    source = {"type": "prometheus", "uid": "${datasource}"}
    found["annotations"] = {
        "list": [{"datasource": source, "enable": True, "step": "60s", **each} for each in ANNOTATIONS]
    }
    return found


def _label_variable(label: str, name: str, of: str) -> dashboard.QueryVariable:
    """All values; without a choice also series whose value is empty."""
    return (
        dashboard.QueryVariable(label)
        .label(name)
        .datasource(SOURCE)
        .query(f"label_values({of}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def _panel(spec: PanelSpec, row: RowSpec) -> timeseries.Panel | stat.Panel:
    panel: timeseries.Panel | stat.Panel = stat.Panel() if spec.form == "number" else _lines(spec)
    is_of_domain = any("$domain" in query.expr for query in spec.queries)
    description = spec.description + ("" if is_of_domain else OF_ALL_DOMAINS)
    panel.title(spec.title).description(description).datasource(SOURCE).unit(spec.unit).min(0)
    panel.height(PANEL_HEIGHT).span(GRID_WIDTH // len(row.panels))
    if spec.largest is not None:
        panel.max(spec.largest)
    if spec.limit is not None:
        panel.thresholds(_thresholds(spec.limit))
    for place, query in enumerate(spec.queries):
        panel.with_target(_target(query, chr(ord("A") + place)))
    return panel


def _lines(spec: PanelSpec) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if spec.form == "stack":
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(30)
    if spec.limit is not None:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return panel


def _thresholds(limit: Limit) -> dashboard.ThresholdsConfig:
    below, above = ("red", "green") if limit.is_floor else ("green", "red")
    steps = [Threshold(value=None, color=below), Threshold(value=limit.value, color=above)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref_id).range()
    return made.exemplar(exemplar=query.has_exemplars).datasource(SOURCE)


if __name__ == "__main__":
    FILE.write_text(build(), encoding="utf-8")
    print(FILE)
