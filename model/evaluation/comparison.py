"""Comparison of several evaluations in one table and one plot."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.bundle.folders import write_whole
from model.errors import DatasetError
from model.evaluation.report import METRICS, Report, Result, interval
from model.network.config import TASKS, Task

PLOTTED: dict[Task, str] = {"sequential": "ndcg@5", "direct": "ndcg@5", "explanation": "rouge-l"}
_BAR_GROUP = 0.8


def write_comparison(results: Sequence[Path], table: Path, plot: Path) -> None:
    """Write a Markdown table and a plot (PNG, SVG or PDF, by its suffix) of several results of `vip5 evaluate`.

    Raises DatasetError for files that are not results.
    """
    reports = read_reports(results)
    write_whole(table, comparison_table(reports).encode())
    write_plot(reports, plot)


def read_reports(results: Sequence[Path]) -> dict[str, Report]:
    """Reports by file name, with the folder's name where two file names are equal."""
    if not results:
        raise DatasetError("no results to compare; give at least one result of vip5 evaluate")
    stems = [path.stem for path in results]
    names = [path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}" for path in results]
    if len(set(names)) < len(names):
        raise DatasetError(f"two results have the name {max(names, key=names.count)}; rename one of the files")
    return {name: Report.read(path) for name, path in zip(names, results, strict=True)}


def comparison_table(reports: Mapping[str, Report]) -> str:
    """A Markdown table with a line for each run and template or baseline; intervals are in brackets."""
    lines = [line for task in TASKS for line in _lines(reports, task)]
    used = [metric for metric in METRICS if any(metric in result.metrics for _, _, result in lines)]
    head = ["task", "by", "run", "data", "users", *(metric.upper() for metric in used)]
    rows = [
        [result.task, result.name, run, data, str(result.num_users)]
        + [interval(metric, result.metrics[metric]) if metric in result.metrics else "–" for metric in used]
        for run, data, result in lines
    ]
    rule = ["---"] * 4 + ["---:"] * (len(head) - 4)
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *rows])


def write_plot(reports: Mapping[str, Report], path: Path) -> None:
    """Plot one metric per task as bars with intervals; baselines are dashed lines."""
    tasks = [task for task in TASKS if any(True for _ in _lines(reports, task))]
    drawing = Figure(figsize=(2 + 4 * len(tasks), 4.5), layout="constrained")
    for axes, task in zip(drawing.subplots(1, max(len(tasks), 1), squeeze=False)[0], tasks, strict=False):
        _draw(axes, reports, task)
    picture = io.BytesIO()
    try:
        drawing.savefig(picture, dpi=150, format=path.suffix.removeprefix(".") or "png")
    except ValueError as error:
        raise DatasetError(
            f"{path} cannot be written ({error}); give a path that ends in .png, .svg or .pdf"
        ) from error
    write_whole(path, picture.getvalue())


def _draw(axes: Axes, reports: Mapping[str, Report], task: Task) -> None:
    metric, runs = PLOTTED[task], list(reports)
    results = [(run, result) for run, _, result in _lines(reports, task) if metric in result.metrics]
    templates = list(dict.fromkeys(result.name for _, result in results if not result.is_baseline))
    width = _BAR_GROUP / max(len(templates), 1)
    for number, template in enumerate(templates):
        drawn = [(runs.index(run), result.metrics[metric]) for run, result in results if result.name == template]
        places = [place - _BAR_GROUP / 2 + (number + 0.5) * width for place, _ in drawn]
        values = [estimate.value for _, estimate in drawn]
        # For a skewed metric, the bootstrap interval may not contain the value.
        below = [max(estimate.value - estimate.low, 0) for _, estimate in drawn]
        above = [max(estimate.high - estimate.value, 0) for _, estimate in drawn]
        axes.bar(places, values, width, yerr=[below, above], capsize=2, label=template)
    for number, (run, result) in enumerate((run, result) for run, result in results if result.is_baseline):
        label = result.name if run == "all" else f"{result.name} ({run})"
        axes.axhline(result.metrics[metric].value, linestyle="--", linewidth=1, color=f"C{9 - number % 5}", label=label)
    axes.set_xticks(range(len(runs)), runs, rotation=20, ha="right")
    axes.set_title(task)
    axes.set_ylabel(metric.upper())
    axes.set_ylim(bottom=0)
    if results:
        axes.legend(fontsize="small")


def _lines(reports: Mapping[str, Report], task: Task) -> Iterable[tuple[str, str, Result]]:
    """Run, data and result by template; a baseline with equal results in all runs is listed once."""
    found = [
        (run, f"{report.dataset} {report.options.split}", result)
        for run, report in reports.items()
        for result in report.results
        if result.task == task
    ]
    for name in dict.fromkeys(result.name for _, _, result in sorted(found, key=lambda line: line[2].is_baseline)):
        own = [line for line in found if line[2].name == name]
        first = own[0][2]
        if first.is_baseline and len({(data, repr(result.metrics)) for _, data, result in own}) == 1:
            yield "all", own[0][1], first
        else:
            yield from own
