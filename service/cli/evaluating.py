"""`vip5 evaluate` and `vip5 compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from model.evaluation.options import BASELINES, DEFAULT_TEMPLATES
from service.cli.beyond_accuracy import show_beyond_accuracy
from service.cli.failures import require
from service.cli.options import Bundle, Data, Device, Domain, NumThreads, input_path, output_file
from service.cli.terminal import fact_table, make_folder_of, progress_bar, write_output

if TYPE_CHECKING:
    # Imported for real when a command runs: torch takes its time to load.
    from model.evaluation.report import ExactComparison, Report, Result
    from model.network.config import Task

EXAMPLE = (
    "Example: vip5 evaluate --bundle bundles/toys --domain toys --data data/toys --num-users 2000 "
    "--baselines random,popularity,co-occurrence --out results/toys.json"
)
COMPARE_EXAMPLE = "Example: vip5 compare results/a.json results/b.json --out table.md --plot plot.png"

_LISTED = "comma-separated"
_DEFAULT_TEMPLATES = ",".join(name for names in DEFAULT_TEMPLATES.values() for name in names)


def evaluate(
    bundle: Bundle,
    domain: Domain,
    data: Data,
    split: Annotated[Literal["test", "val"], typer.Option(help="Which held-out items to ask for.")] = "test",
    tasks: Annotated[
        str | None, typer.Option(help=f"sequential, direct, explanation ({_LISTED}).", show_default="all")
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(help=f"Templates to ask with ({_LISTED}).", show_default=_DEFAULT_TEMPLATES),
    ] = None,
    num_users: Annotated[
        int | None, typer.Option(help="Number of users to draw at random.", show_default="all", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the users, negatives and intervals.", min=0)] = 0,
    num_beams: Annotated[int, typer.Option(help="Beam width of the search.")] = 20,
    exclude_history: Annotated[
        bool, typer.Option("--exclude-history", help="Exclude a user's history from the answers; VIP5 does not.")
    ] = False,
    both_histories: Annotated[
        bool,
        typer.Option("--both-histories", help="Ask for next items twice: with a user's history kept, and excluded."),
    ] = False,
    exact: Annotated[
        int, typer.Option(help="Number of users for whom the whole catalog is ranked exactly, too.", min=0)
    ] = 0,
    without_images: Annotated[
        bool, typer.Option("--without-images", help="Ask as if all image embeddings were missing.")
    ] = False,
    baselines: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(BASELINES)} ({_LISTED}).", show_default="none"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest explanation, in tokens.", min=1)] = 64,
    batch_tokens: Annotated[int, typer.Option(help="Most prompt tokens in a batch, padding included.", min=1)] = 16_384,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Give all metrics by the values of this column, too: of the items, or of --groups-table.",
            show_default="none",
        ),
    ] = None,
    groups_table: Annotated[
        Path | None, input_path("A table about users with user_id and the column of --groups: JSON lines or Parquet.")
    ] = None,
    out: Annotated[
        Path | None,
        output_file(
            "JSON file for the result. Answers are kept beside it, in <name>.answers.jsonl; an interrupted run "
            "continues after the last of them."
        ),
    ] = None,
    device: Device = "cpu",
    num_threads: NumThreads = None,
) -> None:
    """Measure a domain on held-out interactions, through the engine that serves it.

    Metrics come with 95 % confidence intervals from resampled users.
    """
    require("rouge_score", "sacrebleu", "scipy")
    from model.datasets.dataset import Dataset
    from model.evaluation.evaluation import evaluate as measure
    from model.evaluation.options import EvaluationOptions
    from model.planning.runtime import load_runtime

    options = EvaluationOptions(
        split=split,
        tasks=cast("tuple[Task, ...] | None", _listed(tasks)),  # checked by the options
        templates=_listed(templates),
        num_users=num_users,
        seed=seed,
        num_beams=num_beams,
        exclude_history=exclude_history,
        both_histories=both_histories,
        num_exact=exact,
        with_images=not without_images,
        baselines=_listed(baselines) or (),
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        groups=groups,
        groups_table=None if groups_table is None else str(groups_table),
        device=device,
    )
    dataset = Dataset.read(data)
    runtime = load_runtime(bundle, device=device, num_threads=num_threads)
    if out is not None:
        make_folder_of(out)
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
    out: Annotated[Path | None, output_file("Markdown file for the table.", default="standard output")] = None,
    plot: Annotated[Path | None, output_file("File for the plot: .png, .svg or .pdf.")] = None,
) -> None:
    """Put several results of vip5 evaluate into one table and one plot."""
    from model.evaluation.comparison import comparison_table, read_reports, write_plot

    reports = read_reports(results)
    if out is None:
        typer.echo(comparison_table(reports), nl=False)
    else:
        write_output(out, comparison_table(reports).encode())
    if plot is not None:
        make_folder_of(plot)
        write_plot(reports, plot)


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
        show_beyond_accuracy(console, task, results)
        for line in _lacks(results):
            console.print(line, highlight=False, soft_wrap=True)
    if report.history_excluded:
        console.print(_task_table("sequential, history excluded", list(report.history_excluded)))
    for comparison in report.exact:
        console.print(_exact_table(comparison))


def _task_table(task: str, results: list[Result]) -> Table:
    """Metrics, each with the wider side of its interval below."""
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
    """How many users were asked for, and among how many candidates, if all results agree."""
    users = {f"{result.num_users:,} users" for result in results}
    among = {f"{result.num_candidates:,.0f} candidates" for result in results if result.num_candidates is not None}
    return ", ".join(next(iter(each)) for each in (users, among) if len(each) == 1)


def _lacks(results: Iterable[Result]) -> Iterator[str]:
    """Lines for templates with degraded answers, targets out of reach, missing ratings or users that were left out."""
    for result in results:
        if result.num_users_left_out:
            yield (
                f"{result.name}: {result.num_users_left_out:,} users left out, who had every item that could be ranked "
                "beside the target"
            )
        if result.num_out_of_reach:
            yield (
                f"{result.name}: {result.num_out_of_reach:,} of {result.num_questions:,} purchases to find count as "
                "missed, as the bundle's catalog has the items inactive, or the excluded history has them"
            )
        if result.degraded:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.degraded.items())
            yield f"{result.name}: of {result.num_questions:,} answers, {kinds}"
        if result.num_unrated:
            yield f"{result.name}: {result.num_unrated:,} of {result.num_questions:,} texts gave no rating"


def _exact_table(comparison: ExactComparison) -> Table:
    from model.evaluation.report import METRICS, interval

    facts = {
        "same items in the same order": f"{comparison.same_order:.1%}",
        "same items in any order": f"{comparison.same_items:.1%}",
        "recall of the true items": f"{comparison.recall:.1%}",
        "certified": f"{comparison.share_certified:.1%}, {comparison.mean_certified_beams:.0f} beams on average",
    }
    facts |= {
        f"{metric.upper()}, beams minus exact": interval(metric, comparison.differences[metric])
        for metric in METRICS
        if metric in comparison.differences
    }
    title = f"{comparison.name}: beams against the exact ranking of the catalog, {comparison.num_users:,} users"
    return fact_table(title, facts)
