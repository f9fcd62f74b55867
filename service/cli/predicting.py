"""`vip5 predict`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli.chosen_settings import read_settings
from service.cli.options import Engine, NumThreads, Restart, ServedBundle, ServedDevice, input_file, output_file
from service.cli.terminal import make_folder_of, progress_bar

EXAMPLE = "Example: vip5 predict --bundle demo/bundle --requests in.jsonl --out out.jsonl"


def predict(
    *,
    bundle: ServedBundle = None,
    requests: Annotated[
        Path,
        input_file("JSON lines, or *.parquet: bodies as HTTP takes them, with `task` added."),
    ],
    out: Annotated[Path, output_file("JSON lines, or *.parquet: one answer per request, in order.")],
    device: ServedDevice = None,
    engine: Engine = None,
    num_threads: NumThreads = None,
    restart: Restart = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Answer on the Ray cluster that RAY_ADDRESS names, or a local one.")
    ] = False,
    workers: Annotated[
        int, typer.Option(help="With --ray, number of actors that answer, with an engine each.", min=1)
    ] = 1,
) -> None:
    """Answer a file of requests in batches, without HTTP.

    The same command goes on after an interrupted run, whose answers are in the folder OUT.parts.

    Each line has the fields of an HTTP body, and `task`: sequential, direct or explanation. A line that cannot be
    answered gives a problem document in its place.
    """
    settings = read_settings(bundle=bundle, device=device, engine=engine, num_threads=num_threads)
    make_folder_of(out)
    with progress_bar() as report:
        if ray:
            from service.ray.prediction import predict_on_ray

            counts = predict_on_ray(settings, requests, out, report, restarts=restart, num_actors=workers)
        else:
            from service.answering.prediction import predict_file

            counts = asyncio.run(predict_file(settings, requests, out, report, restarts=restart))
    typer.echo(f"{counts.num_answered} answered, {counts.num_failed} failed, written to {out}", err=True)
