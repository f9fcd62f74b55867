"""`vip5 serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.chosen_settings import read_settings
from service.cli.options import Engine, NumThreads, ServedBundle, ServedDevice

EXAMPLE = "Example: vip5 serve --bundle demo/bundle --port 8000"


def serve(
    bundle: ServedBundle = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    unix_socket: Annotated[
        Path | None, typer.Option(help="Unix socket to listen on instead of host and port.", show_default="none")
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path under which a proxy serves the service.", show_default="none")
    ] = None,
    device: ServedDevice = None,
    engine: Engine = None,
    num_threads: NumThreads = None,
    workers: Annotated[
        str | None,
        typer.Option(help="Processes that speak HTTP for the engine: a number, or `auto`.", show_default="0"),
    ] = None,
) -> None:
    """Serve a bundle over HTTP until SIGTERM or SIGINT, then finish running requests.

    Each option has a variable too, such as VIP5_BUNDLE, and wins over it; docs/api.md lists all settings.
    """
    settings = read_settings(
        bundle=bundle,
        host=host,
        port=port,
        unix_socket=unix_socket,
        root_path=root_path,
        device=device,
        engine=engine,
        num_threads=num_threads,
        workers=workers,
    )
    from service.processes.serving import run

    run(settings)
