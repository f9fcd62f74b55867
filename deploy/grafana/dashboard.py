"""Generates dashboards/vip5.json from the panel definitions: python -m deploy.grafana.dashboard."""

from __future__ import annotations

import json
from pathlib import Path

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
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import Limit, PanelSpec, Query, RowSpec
from deploy.grafana.request_rows import ENGINE, LATENCIES, STAGES, TRAFFIC
from deploy.grafana.state_rows import BUNDLES, FEATURES, MACHINE, QUALITY, VERSIONS

ROWS = (LATENCIES, STAGES, TRAFFIC, ENGINE, FEATURES, QUALITY, VERSIONS, BUNDLES, MACHINE)
FILE = Path(__file__).parent / "dashboards" / "vip5.json"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GRID_WIDTH = 24
PANEL_HEIGHT = 8


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
    made.with_variable(_label_variable("domain", "Domain"))
    made.with_variable(_label_variable("route", "Route"))
    for row in ROWS:
        made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made.with_panel(_panel(panel, row))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _label_variable(label: str, name: str) -> dashboard.QueryVariable:
    """All values except the empty one of probes and unknown paths."""
    return (
        dashboard.QueryVariable(label)
        .label(name)
        .datasource(SOURCE)
        .query(f'label_values(vip5_requests_total{{domain!=""}}, {label})')
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".+")
    )


def _panel(spec: PanelSpec, row: RowSpec) -> timeseries.Panel | stat.Panel:
    panel: timeseries.Panel | stat.Panel = stat.Panel() if spec.form == "number" else _lines(spec)
    panel.title(spec.title).description(spec.description).datasource(SOURCE).unit(spec.unit).min(0)
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
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref_id).range().datasource(SOURCE)


if __name__ == "__main__":
    FILE.write_text(build(), encoding="utf-8")
    print(FILE)
