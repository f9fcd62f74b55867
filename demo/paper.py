"""VIP5's studies on the demonstration's data: pictures, places and sizes of adapters, visual tokens.

    python -m demo.paper --out data/paper

Makes the demonstration's data and a backbone that has never seen a picture, freezes it as VIP5 does, and runs
`vip5 sweep` with `demo/paper-sweep.toml` on it: each variant changes one thing. Writes a plot with a panel for
each study, and the sweep's table. An interrupted run goes on when it is started again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from demo.make import RUNS, Places, Recipe, train, write_data
from demo.progress import progress_bar
from model.errors import Vip5Error
from model.evaluation.comparison import read_reports
from model.evaluation.metrics import Estimate
from model.evaluation.report import Report
from model.prompts.templates import DEFAULT_SEQUENTIAL
from model.training.sweep import read_sweep, run_sweep

SWEEP = Path(__file__).with_name("paper-sweep.toml")
BACKBONE = "text-backbone"
METRIC = "hr@5"
CHOSEN = "pictures"
"""The variant with what VIP5 chose for everything."""


@dataclass(frozen=True)
class Study:
    """A figure of the paper: variants of the sweep by what is written below their bars."""

    title: str
    variants: Mapping[str, str]


STUDIES = (
    Study("Prompts", {"text alone": "text-only", "with pictures": CHOSEN}),
    Study("What is trained", {"self-\nattention": "self-attention", "adapters": CHOSEN, "everything": "everything"}),
    Study("Reduction", {"2": "reduction-2", "4": "reduction-4", "8": CHOSEN, "16": "reduction-16"}),
    Study("Visual tokens", {"1": "tokens-1", "2": CHOSEN, "3": "tokens-3", "5": "tokens-5"}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.paper", description="Repeat VIP5's studies on toys.")
    parser.add_argument("--out", type=Path, default=Path("data/paper"), help="folder (default: data/paper)")
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads (default: 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.num_threads)
    try:
        results = study(options.out, options.num_threads, Recipe())
        plot(read_reports(results), options.out / "paper.png")
    except Vip5Error as error:
        print(error, file=sys.stderr)
        return 1
    print((options.out / "table.md").read_text(encoding="utf-8"))
    return 0


def study(out: Path, num_threads: int, recipe: Recipe) -> list[Path]:
    """Train and evaluate all variants; returns the paths of the results."""
    places = Places(out / "bundle")
    if not (places.work / "tokenizer.json").exists():
        write_data(places, recipe)
    train(BACKBONE, places.work, recipe)
    shutil.copy(RUNS / "paper.toml", places.work)
    sweep = read_sweep(Path(shutil.copy(SWEEP, places.work)))
    with progress_bar() as report:
        run_sweep(sweep, num_threads=num_threads, progress=report)
    shutil.copy(sweep.table, out / "table.md")
    return [run.out.parent / f"{run.name}.json" for run in sweep.runs]


def plot(reports: Mapping[str, Report], path: Path) -> None:
    """A panel for each study: hit rates with intervals."""
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    row = figure.subplots(1, len(STUDIES), sharey=True)
    for axes, each in zip(row, STUDIES, strict=True):
        _draw(axes, each, reports)
    row[0].set_ylabel(METRIC.upper())
    figure.savefig(path, dpi=110)


def _draw(axes: Axes, study: Study, reports: Mapping[str, Report]) -> None:
    found = [_estimate(reports[variant]) for variant in study.variants.values()]
    colours = ["C0" if variant == CHOSEN else "C7" for variant in study.variants.values()]
    errors = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
    axes.bar(range(len(found)), [each.value for each in found], yerr=errors, capsize=3, color=colours)
    axes.set_xticks(range(len(found)), list(study.variants))
    axes.set_title(study.title)


def _estimate(report: Report) -> Estimate:
    return report.of("sequential", DEFAULT_SEQUENTIAL).metrics[METRIC]


if __name__ == "__main__":
    sys.exit(main())
