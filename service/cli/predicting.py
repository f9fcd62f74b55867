"""`vip5 predict`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli.terminal import progress_bar
from service.settings import SettingsError, load_settings

EXAMPLE = "Example: vip5 predict --bundle demo/bundle --requests in.jsonl --out out.jsonl"


def predict(
    bundle: Annotated[Path, typer.Option(help="The bundle to answer from.", show_default=False)],
    requests: Annotated[
        Path, typer.Option(help="JSON lines: bodies as HTTP takes them, and `task`.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="JSON lines: one answer per request, in order.", dir_okay=False)],
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.", show_default="cpu")] = None,
    engine: Annotated[str | None, typer.Option(help="torch, onnx… or auto.", show_default="auto")] = None,
    num_threads: Annotated[int | None, typer.Option(help="CPU threads of the model.", show_default="all cores")] = None,
) -> None:
    """Answer a file of requests in batches, without HTTP.

    Each line has a field `task` (sequential, direct or explanation) beside those of the HTTP body. A line that cannot
    be answered gives a problem document in its place.
    """
    try:
        settings = load_settings({"bundle": bundle, "device": device, "engine": engine, "num_threads": num_threads})
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
    from service.answering.prediction import predict_file

    with progress_bar() as report:
        counts = asyncio.run(predict_file(settings, requests, out, report))
    typer.echo(f"{counts.num_answered} answered, {counts.num_failed} failed, written to {out}", err=True)
