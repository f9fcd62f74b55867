"""`vip5 predict`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli.chosen_settings import read_settings
from service.cli.options import Engine, NumThreads, ServedBundle, ServedDevice, input_file, output_file
from service.cli.terminal import make_folder_of, progress_bar

EXAMPLE = "Example: vip5 predict --bundle demo/bundle --requests in.jsonl --out out.jsonl"


def predict(
    *,
    bundle: ServedBundle = None,
    requests: Annotated[
        Path,
        input_file("JSON lines: bodies as HTTP takes them, with `task` added."),
    ],
    out: Annotated[Path, output_file("JSON lines: one answer per request, in order.")],
    device: ServedDevice = None,
    engine: Engine = None,
    num_threads: NumThreads = None,
) -> None:
    """Answer a file of requests in batches, without HTTP.

    Each line has the fields of an HTTP body, and `task`: sequential, direct or explanation. A line that cannot be
    answered gives a problem document in its place.
    """
    settings = read_settings(bundle=bundle, device=device, engine=engine, num_threads=num_threads)
    from service.answering.prediction import predict_file

    make_folder_of(out)
    with progress_bar() as report:
        counts = asyncio.run(predict_file(settings, requests, out, report))
    typer.echo(f"{counts.num_answered} answered, {counts.num_failed} failed, written to {out}", err=True)
