"""`vip5 evaluate` and `vip5 compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from model.evaluation.options import DEFAULT_TEMPLATES
from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    # Imported for real when a command runs: torch takes its time to load.
    from model.evaluation.report import ExactComparison, Report, Result
    from model.network.config import Task

EXAMPLE = (
    "Example: vip5 evaluate --bundle bundles/toys --domain toys --data data/toys --users 2000 "
    "--baselines random,popularity,co-occurrence --out results/toys.json"
)
COMPARE_EXAMPLE = "Example: vip5 compare results/a.json results/b.json --out table.md --plot plot.png"

_LISTED = "comma-separated"
_DEFAULT_TEMPLATES = ",".join(name for names in DEFAULT_TEMPLATES.values() for name in names)


def evaluate(
    bundle: Annotated[Path, typer.Option(help="The bundle to measure.", exists=True, file_okay=False)],
    domain: Annotated[str, typer.Option(help="The domain of it.")],
    data: Annotated[Path, typer.Option(help="A dataset made by vip5 data.", exists=True, file_okay=False)],
    split: Annotated[Literal["test", "val"], typer.Option(help="Which held-out items to ask for.")] = "test",
    tasks: Annotated[
        str | None, typer.Option(help=f"sequential, direct, explanation ({_LISTED}).", show_default="all")
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(help=f"Templates to ask by ({_LISTED}).", show_default=_DEFAULT_TEMPLATES),
    ] = None,
    users: Annotated[int | None, typer.Option(help="Draw so many users at random.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Of the users drawn, of negatives, and of the intervals.")] = 0,
    num_beams: Annotated[int, typer.Option(help="Width of the search.")] = 20,
    exclude_history: Annotated[
        bool, typer.Option("--exclude-history", help="Leave a user's history out of the answers; VIP5 does not.")
    ] = False,
    exact: Annotated[int, typer.Option(help="Rank the whole catalog exactly, too, for so many of the users.")] = 0,
    without_images: Annotated[
        bool,
        typer.Option("--without-images", "--text-only", help="Ask as if no image embedding could be had."),
    ] = False,
    baselines: Annotated[
        str | None,
        typer.Option(help=f"random, popularity, co-occurrence, sasrec ({_LISTED}).", show_default="none"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest explanation.")] = 64,
    batch_tokens: Annotated[int, typer.Option(help="Most prompt tokens in a batch, padding included.")] = 16_384,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the result goes, as JSON. Answers are kept beside it, in <name>.answers.jsonl, and a run that "
            "was stopped goes on where they end.",
            dir_okay=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    num_threads: Annotated[int | None, typer.Option(help="CPU threads of the model.", show_default="all cores")] = None,
) -> None:
    """Measure a domain on held-out interactions, through the engine that serves it.

    Figures come with 95 % confidence intervals from resampled users.
    """
    with _training_libraries():
        from model.evaluation.evaluation import evaluate as measure
    from model.datasets.dataset import Dataset
    from model.evaluation.options import EvaluationOptions
    from model.planning.runtime import load_runtime

    options = EvaluationOptions(
        split=split,
        tasks=cast("tuple[Task, ...] | None", _listed(tasks)),  # checked by the options
        templates=_listed(templates),
        num_users=users,
        seed=seed,
        num_beams=num_beams,
        exclude_history=exclude_history,
        num_exact=exact,
        with_images=not without_images,
        baselines=_listed(baselines) or (),
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        device=device,
    )
    dataset = Dataset.read(data)
    runtime = load_runtime(bundle, device=device, num_threads=num_threads)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar() as report:
        journal = None if out is None else out.with_name(f"{out.stem}.answers.jsonl")
        result = measure(runtime, domain, dataset, options, journal=journal, progress=report)
    if out is not None:
        result.write(out)
    _show(result)


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT...", help="Results of vip5 evaluate.", exists=True, dir_okay=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the table goes, as Markdown.", show_default="standard output")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Where the plot goes: .png, .svg or .pdf.")] = None,
) -> None:
    """Put several results of vip5 evaluate into one table and one plot."""
    with _training_libraries():
        from model.evaluation.comparison import comparison_table, read_reports, write_plot

    reports = read_reports(results)
    if out is None:
        typer.echo(comparison_table(reports), nl=False)
    else:
        out.write_text(comparison_table(reports), encoding="utf-8")
    if plot is not None:
        write_plot(reports, plot)


@contextmanager
def _training_libraries() -> Iterator[None]:
    """What only training and evaluation need is installed with an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(f"error: {error}; evaluating needs the extra: pip install 'vip5-serve[train]'", err=True)
        raise typer.Exit(1) from error


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _show(report: Report) -> None:
    console = Console()
    console.print(
        f"{report.domain} of bundle {report.bundle[:12]} on {report.dataset} ({report.options.split}, "
        f"{report.indexing} indices), {report.seconds:.0f} s on {report.hardware}",
        highlight=False,
        soft_wrap=True,
    )
    for task in dict.fromkeys(result.task for result in report.results):
        results = [result for result in report.results if result.task == task]
        console.print(_task_table(task, results))
        for line in _lacks(results):
            console.print(line, highlight=False, soft_wrap=True)
    for comparison in report.exact:
        console.print(_exact_table(comparison))


def _task_table(task: str, results: list[Result]) -> Table:
    """Figures with the wider side of their interval below."""
    from model.evaluation.report import METRICS, digits_of

    used = [metric for metric in METRICS if any(metric in result.metrics for result in results)]
    table = Table(title=f"{task}: {_spans(results)}", title_justify="left", box=SIMPLE, padding=0)
    table.add_column(no_wrap=True)
    has_proofs = any(result.proofs is not None for result in results)
    for name in (*used, *(["proven"] if has_proofs else [])):
        table.add_column(name.upper(), justify="right")
    for result in results:
        figures = []
        for metric in used:
            found, digits = result.metrics.get(metric), digits_of(metric)
            figures.append("" if found is None else f"{found.value:.{digits}f}\n±{found.margin:.{digits}f}")
        proven = "" if result.proofs is None else f"{result.proofs.mean:.1f}"
        table.add_row(result.name, *figures, *([proven] if has_proofs else []))
    return table


def _spans(results: list[Result]) -> str:
    """How many users were asked for, and among how many candidates, where all results agree on it."""
    users = {f"{result.num_users:,} users" for result in results}
    among = {f"{result.num_candidates:,.0f} candidates" for result in results if result.num_candidates is not None}
    return ", ".join(next(iter(each)) for each in (users, among) if len(each) == 1)


def _lacks(results: Iterable[Result]) -> Iterator[str]:
    """A line for each template whose answers were less than they could be."""
    for result in results:
        if result.degraded:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.degraded.items())
            yield f"{result.name}: of {result.num_questions:,} answers, {kinds}"
        if result.num_unrated:
            yield f"{result.name}: {result.num_unrated:,} of {result.num_questions:,} texts gave no rating"


def _exact_table(comparison: ExactComparison) -> Table:
    from model.evaluation.report import METRICS, interval

    table = Table(
        title=f"{comparison.name}: beams against the exact ranking of the catalog, {comparison.num_users:,} users",
        title_justify="left",
        show_header=False,
    )
    rows = {
        "same items in the same order": f"{comparison.same_order:.1%}",
        "same items in any order": f"{comparison.same_items:.1%}",
        "of the true items, found": f"{comparison.recall:.1%}",
        "certified": f"{comparison.share_certified:.1%}, {comparison.mean_certified_beams:.0f} beams in the mean",
    }
    rows |= {
        f"{metric.upper()}, beams minus exact": interval(metric, comparison.differences[metric])
        for metric in METRICS
        if metric in comparison.differences
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
