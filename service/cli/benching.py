"""`vip5 bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from service.cli.terminal import progress_bar

if TYPE_CHECKING:
    # Imported for real when the command runs: torch takes its time to load.
    from model.evaluation.benchmark import Measurements

EXAMPLE = "Example: vip5 bench --bundle demo/bundle --rows 1,4 --tokens 64,128 --write buckets.json"

_LISTED = "comma-separated"


def bench(
    bundle: Annotated[Path, typer.Option(help="The bundle to measure.", exists=True, file_okay=False)],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    rows: Annotated[str, typer.Option(help=f"Requests in a batch ({_LISTED}).")] = "1,2,4,8,16,32",
    tokens: Annotated[str, typer.Option(help=f"Tokens that prompts have at most ({_LISTED}).")] = "64,128,256",
    beams: Annotated[str, typer.Option(help=f"Widths, compared with the widest ({_LISTED}).")] = "10,20,50,100",
    num_beams: Annotated[int, typer.Option(help="Width of the searches by rows and tokens.", min=1)] = 20,
    k: Annotated[int, typer.Option(help="Items to ask for.", min=1)] = 10,
    requests: Annotated[int, typer.Option(help="Different requests of each length.", min=1)] = 32,
    repeats: Annotated[int, typer.Option(help="Batches of each shape.", min=1)] = 10,
    num_threads: Annotated[
        int | None, typer.Option(help="CPU threads of the model.", show_default="all cores", min=1)
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="File for the shapes to capture and the beam table.", dir_okay=False)
    ] = None,
) -> None:
    """Measure batches of several shapes and searches of several widths, with histories drawn from the catalogs.

    --write stores what a GPU should capture at the start (`buckets`) and what each beam width costs and finds (`beams`,
    which VIP5_BEAM_TABLE reads).
    """
    sizes, lengths, widths = (
        _numbers(name, text) for name, text in (("--rows", rows), ("--tokens", tokens), ("--beams", beams))
    )
    from model.evaluation.benchmark import BenchOptions, measure
    from model.planning.runtime import load_runtime

    runtime = load_runtime(bundle, device=device, num_threads=num_threads)
    options = BenchOptions(sizes, lengths, widths, num_beams, k, requests, repeats)
    with progress_bar() as report:
        found = measure(runtime.engine, list(runtime.domains.values()), options, report)
    _print(found)
    if write is not None:
        content = {"device": device, "bundle": runtime.bundle_hash, **found.to_json(num_beams)}
        write.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{option} is {text!r}; give numbers above 0, separated by commas")
    return tuple(sorted({int(part) for part in parts}))


def _print(found: Measurements) -> None:
    console = Console()
    shapes = Table("requests", "tokens", "median, ms", "p95, ms", "requests/s", box=SIMPLE)
    for shape in found.shapes:
        mark = " *" if shape == found.best else ""
        shapes.add_row(
            str(shape.num_rows),
            str(shape.num_tokens),
            f"{shape.latency_ms:.1f}",
            f"{shape.p95_ms:.1f}",
            f"{shape.requests_per_s:.1f}{mark}",
        )
    beams = Table("beams", "median, ms", "recall@10 of the widest", "proven exact", box=SIMPLE)
    for width in found.beams:
        beams.add_row(
            str(width.num_beams), f"{width.latency_ms:.1f}", f"{width.recall:.3f}", f"{width.share_exact:.3f}"
        )
    console.print(shapes)
    console.print(beams)
