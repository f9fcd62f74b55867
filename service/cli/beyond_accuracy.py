"""What `vip5 evaluate` shows beside accuracy: exposure, and the metrics by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    # Imported for real when a command runs: torch takes its time to load.
    from model.evaluation.metrics import Estimate
    from model.evaluation.report import Result


def show_beyond_accuracy(console: Console, task: str, results: list[Result]) -> None:
    """A table of exposure, a table of groups for each result that has them, and their largest gaps."""
    from model.evaluation.exposure import EXPOSURE_METRICS
    from model.evaluation.report import METRICS

    exposed = {result.name: result.exposure.metrics for result in results if result.exposure is not None}
    if exposed:
        console.print(_table(f"{task}: beyond accuracy", exposed, EXPOSURE_METRICS))
    for line in _lacks(results):
        console.print(line, highlight=False, soft_wrap=True)
    for result in results:
        if (found := result.groups) is None:
            continue
        by_group = {f"{group.value} ({group.num_users:,} users)": group.metrics for group in found.groups}
        title = f"{result.name}: by {found.column}"
        console.print(_table(title, by_group, (*METRICS, *EXPOSURE_METRICS)))
        console.print(_gap_of(result), highlight=False, soft_wrap=True)


def _table(title: str, rows: Mapping[str, Mapping[str, Estimate]], metrics: tuple[str, ...]) -> Table:
    """Metrics in rows, because there are many, each with the wider side of its interval."""
    from model.evaluation.report import digits_of

    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    for name in rows:
        table.add_column(name, justify="right")
    for metric in metrics:
        if not any(metric in found for found in rows.values()):
            continue
        digits = digits_of(metric)
        figures = [
            f"{found[metric].value:,.{digits}f} ±{found[metric].margin:,.{digits}f}" if metric in found else ""
            for found in rows.values()
        ]
        table.add_row(metric.upper(), *figures)
    return table


def _lacks(results: list[Result]) -> Iterator[str]:
    """A line for each result with lists that have no diversity."""
    for result in results:
        if result.exposure is not None and (number := result.exposure.num_without_diversity):
            yield (
                f"{result.name}: {number:,} of {result.num_questions:,} lists have no diversity, with fewer than two "
                "items that have an embedding"
            )


def _gap_of(result: Result) -> str:
    """The largest gap in words, and how many questions are in no group."""
    from model.evaluation.gaps import LEAST_USERS
    from model.evaluation.report import interval

    assert result.groups is not None
    unknown = result.groups.num_without_value
    outside = f"; {unknown:,} questions without a value" if unknown else ""
    gap = result.groups.largest
    if gap is None:
        compared = f"groups of at least {LEAST_USERS} users differ"
        return f"{result.name}: no metric in which {compared} with an interval that excludes 0{outside}"
    difference = interval(gap.metric, gap.difference)
    return f"{result.name}: largest gap: {gap.metric.upper()}, {gap.higher} minus {gap.lower}: {difference}{outside}"
