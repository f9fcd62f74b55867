"""`vip5 serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.settings import SettingsError, load_settings

EXAMPLE = "Example: vip5 serve --bundle demo/bundle --port 8000"


def serve(
    bundle: Annotated[Path | None, typer.Option(help="The bundle to serve.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.", show_default="8000")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.", show_default="cpu")] = None,
    engine: Annotated[str | None, typer.Option(help="torch, onnx… or auto.", show_default="auto")] = None,
    num_threads: Annotated[int | None, typer.Option(help="CPU threads of the model.", show_default="all cores")] = None,
) -> None:
    """Serve a bundle over HTTP until SIGTERM, which lets running requests end.

    Every setting has a variable too, such as VIP5_BUNDLE; docs/api.md lists them all.
    """
    options = {
        "bundle": bundle,
        "host": host,
        "port": port,
        "device": device,
        "engine": engine,
        "num_threads": num_threads,
    }
    try:
        settings = load_settings(options)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
    from service.http.server import run_server

    run_server(settings)
