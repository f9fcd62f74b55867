"""`vip5 bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from service.cli.failures import UsageError
from service.cli.options import Bundle, Device, NumThreads, output_file
from service.cli.terminal import progress_bar, write_output

if TYPE_CHECKING:
    # Imported for real when the command runs: torch takes its time to load.
    from model.evaluation.benchmark import Measurements

EXAMPLE = "Example: vip5 bench --bundle demo/bundle --rows 1,4 --tokens 64,128 --out buckets.json"

_LISTED = "comma-separated"


def bench(
    bundle: Bundle,
    device: Device = "cpu",
    rows: Annotated[str, typer.Option(help=f"Numbers of requests in a batch ({_LISTED}).")] = "1,2,4,8,16,32",
    tokens: Annotated[str, typer.Option(help=f"Numbers of tokens that prompts may have ({_LISTED}).")] = "64,128,256",
    beams: Annotated[
        str, typer.Option(help=f"Beam widths to compare with the widest of them ({_LISTED}).")
    ] = "10,20,50,100",
    num_beams: Annotated[int, typer.Option(help="Beam width while rows and tokens vary.", min=1)] = 20,
    k: Annotated[int, typer.Option(help="Number of items to ask for.", min=1)] = 10,
    num_requests: Annotated[int, typer.Option(help="Number of different requests of each length.", min=1)] = 32,
    repeats: Annotated[int, typer.Option(help="Number of batches of each shape.", min=1)] = 10,
    num_threads: NumThreads = None,
    out: Annotated[
        Path | None,
        output_file("JSON file for the shapes to capture and the beam table."),
    ] = None,
) -> None:
    """Measure batches of several shapes and searches of several widths, with histories drawn from the catalogs.

    --out stores what a GPU should capture at the start (`buckets`, which VIP5_GRAPH_BUCKETS reads) and what each beam
    width costs and finds (`beams`, which VIP5_BEAM_TABLE reads).
    """
    sizes, lengths, widths = _numbers("rows", rows), _numbers("tokens", tokens), _numbers("beams", beams)
    from model.evaluation.benchmark import BenchOptions, measure
    from model.planning.runtime import load_runtime

    runtime = load_runtime(bundle, device=device, num_threads=num_threads)
    options = BenchOptions(sizes, lengths, widths, num_beams, k, num_requests, repeats)
    with progress_bar() as report:
        found = measure(runtime.engine, list(runtime.domains.values()), options, report)
    _print(found)
    if out is not None:
        content = {"device": device, "bundle": runtime.bundle_hash, **found.to_json(num_beams)}
        write_output(out, (json.dumps(content, indent=2) + "\n").encode())  # a service may be reading it


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--{option} is {text!r}; give numbers above 0, separated by commas")
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
