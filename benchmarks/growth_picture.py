"""Plots the results of `benchmarks.growth`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """The plot of one sweep: its parameter and the plotted values."""

    sweep: str
    along: str
    label: str
    shown: str
    unit: str


PANELS = (
    Panel("catalog", "items", "items of the catalog", "median_ms", "ms a request"),
    Panel("domains", "domains", "domains in a batch of 32", "requests_a_second", "requests a second"),
    Panel("beams", "beams", "beams", "median_ms", "ms a request"),
    Panel("history", "history", "items of the history", "median_ms", "ms a request"),
)


def draw(sweeps: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Four plots in one PNG; the axes start at zero, so that heights are comparable."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    for panel, axes in zip(PANELS, figure.subplots(2, 2).flat, strict=True):
        points = sweeps[panel.sweep]
        axes.plot([point[panel.along] for point in points], [point[panel.shown] for point in points], "o-")
        axes.set(xscale="log", xlabel=panel.label, ylabel=panel.unit, ylim=(0, None))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
