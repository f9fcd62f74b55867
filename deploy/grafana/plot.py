"""Plots the dashboard's rows as PNG files with the same queries, without Grafana.

python -m deploy.grafana.plot --prometheus http://localhost:9090 --minutes 60 --out docs/pictures
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, PercentFormatter, ScalarFormatter
from numpy.typing import NDArray

from deploy.grafana.dashboard import ROWS
from deploy.grafana.panels import RATE, PanelSpec, Query, RowSpec

NUM_STEPS = 300
NUM_SCRAPES = 4  # per rate interval, as in Grafana
PANEL_INCHES = (5.2, 3.4)
MAX_LEGEND_LENGTH = 60
ANYTHING = dict.fromkeys(("$job", "$instance", "$domain", "$route"), ".*")
UNITS: Mapping[str, Formatter] = {
    "s": EngFormatter("s"),
    "bytes": EngFormatter("B"),
    "reqps": EngFormatter("/s"),
    "percentunit": PercentFormatter(1.0),
    "short": ScalarFormatter(useOffset=False),
}


@dataclass(frozen=True)
class Mark:
    """A named time span, such as a fault, in Unix time."""

    name: str
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class Window:
    """The time range in Unix time, and Prometheus' scrape interval."""

    started_at: float
    ended_at: float
    scrape_s: float

    @property
    def step_s(self) -> float:
        return max((self.ended_at - self.started_at) / NUM_STEPS, self.scrape_s)

    @property
    def rate_range(self) -> str:
        return f"{max(round(NUM_SCRAPES * self.scrape_s), round(self.step_s), 1)}s"


@dataclass(frozen=True, eq=False)
class Line:
    """One series: seconds since the window's start, and values (NaN if missing)."""

    name: str
    times: NDArray[np.float64]
    values: NDArray[np.float64]


class Source:
    """Queries Prometheus for the series of panels."""

    def __init__(self, url: str, window: Window) -> None:
        self._url = url
        self._window = window
        self._times = np.arange(window.started_at, window.ended_at, window.step_s)

    def lines(self, panel: PanelSpec) -> list[Line]:
        """All series of the panel."""
        return [line for query in panel.queries for line in self._series(query)]

    def _series(self, query: Query) -> list[Line]:
        expr = query.expr
        for variable, value in (ANYTHING | {RATE: self._window.rate_range}).items():
            expr = expr.replace(variable, value)
        window = {"start": self._times[0], "end": self._times[-1], "step": self._window.step_s}
        answer = httpx.get(f"{self._url}/api/v1/query_range", params={"query": expr, **window}, timeout=60)
        answer.raise_for_status()
        return [self._line(each["metric"], each["values"], query.legend) for each in answer.json()["data"]["result"]]

    def _line(self, labels: Mapping[str, str], pairs: Sequence[tuple[float, str]], legend: str) -> Line:
        values = np.full(len(self._times), np.nan)
        for at, value in pairs:
            values[round((at - self._times[0]) / self._window.step_s)] = float(value)
        name = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)
        return Line(name.strip()[:MAX_LEGEND_LENGTH], self._times - self._times[0], values)


def draw(url: str, window: Window, folder: Path, marks: Sequence[Mark] = ()) -> list[Path]:
    """Write one PNG per row that has data; returns their paths."""
    source = Source(url, window)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for row in ROWS:
        panels = [(panel, lines) for panel in row.panels if (lines := source.lines(panel))]
        if panels:
            drawn.append(_draw_row(row, panels, folder, [_since(mark, window) for mark in marks]))
    return drawn


def _since(mark: Mark, window: Window) -> Mark:
    return Mark(mark.name, mark.started_at - window.started_at, mark.ended_at - window.started_at)


def _draw_row(
    row: RowSpec, panels: Sequence[tuple[PanelSpec, list[Line]]], folder: Path, marks: Sequence[Mark]
) -> Path:
    num_columns = 2 if len(panels) % 2 == 0 else min(len(panels), 3)
    num_rows = -(-len(panels) // num_columns)
    figure = Figure(figsize=(PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows), layout="constrained")
    figure.suptitle(row.title)
    places = figure.subplots(num_rows, num_columns, squeeze=False).flat
    for axes, (panel, lines) in zip(places, panels, strict=True):
        _draw_panel(axes, panel, lines)
        for mark in marks:
            axes.axvspan(mark.started_at, mark.ended_at, color="gray", alpha=0.15, lw=0)
            axes.text(mark.started_at, axes.get_ylim()[1], f" {mark.name}", fontsize="xx-small", va="top")
    file = folder / f"{re.sub(r'[^a-z]+', '-', row.title.lower())}.png"
    figure.savefig(file, dpi=80)
    return file


def _draw_panel(axes: Axes, panel: PanelSpec, lines: Sequence[Line]) -> None:
    axes.set_title(panel.title, fontsize="medium")
    axes.set_xlabel("seconds", fontsize="x-small")
    axes.tick_params(labelsize="x-small")
    if panel.form == "stack":
        values = np.nan_to_num(np.array([line.values for line in lines]))
        axes.stackplot(lines[0].times, values, labels=[line.name for line in lines], alpha=0.7)
    else:
        for line in lines:
            axes.plot(line.times, line.values, lw=1, label=line.name)
    if panel.limit is not None:
        axes.axhline(panel.limit.value, color="red", ls="--", lw=0.8)
    highest = max((np.nanmax(line.values, initial=0) for line in lines), default=0)
    if panel.form != "stack":
        axes.set_ylim(0, 1.1 * (panel.largest or highest or 1))
    axes.legend(fontsize="xx-small", loc="upper left", bbox_to_anchor=(0, -0.15), ncols=2, frameon=False)
    axes.yaxis.set_major_formatter(UNITS[panel.unit])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True, help="URL of Prometheus")
    parser.add_argument("--minutes", type=float, default=60, help="length of the time range (default: 60)")
    parser.add_argument("--scrape-s", type=float, default=15, help="scrape_interval of Prometheus (default: 15)")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    given = parser.parse_args()
    now = time.time()
    for file in draw(given.prometheus, Window(now - 60 * given.minutes, now, given.scrape_s), given.out):
        print(file)


if __name__ == "__main__":
    main()
