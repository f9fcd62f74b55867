"""Options that several commands share: each has one name, one check and one help text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from model.bundle.exchange.place import is_url
from model.engine.names import EngineName


def input_file(text: str, *, default: str | bool = False) -> Any:  # noqa: ANN401  # what typer.Option returns, too
    """An option that names a file to read; `default` says what happens without it."""
    return typer.Option(help=text, exists=True, dir_okay=False, show_default=default)


def input_folder(text: str, *, default: str | bool = False) -> Any:  # noqa: ANN401
    """An option that names a folder to read."""
    return typer.Option(help=text, exists=True, file_okay=False, show_default=default)


def input_path(text: str) -> Any:  # noqa: ANN401
    """An option that names a file or a folder to read."""
    return typer.Option(help=text, exists=True, show_default=False)


def output_file(text: str, *, default: str | bool = False) -> Any:  # noqa: ANN401
    """An option that names a file to write."""
    return typer.Option(help=text, dir_okay=False, show_default=default)


_BUNDLE_HELP = "The bundle: a folder with manifest.json."


def _check_folder_or_url(text: str | None) -> str | None:
    if text is not None and not is_url(text) and not Path(text).is_dir():
        raise typer.BadParameter(f"Directory {text!r} does not exist.")
    return text


_DEVICES = re.compile(r"cpu|cuda(:\d+)?")


def _check_device(name: str | None) -> str | None:
    if name is not None and _DEVICES.fullmatch(name) is None:
        raise typer.BadParameter(f"{name!r} is not a device; give cpu, cuda or cuda:N")
    return name


def _device(*, default: str | bool) -> Any:  # noqa: ANN401
    return typer.Option(help="cpu, cuda or cuda:N.", show_default=default, callback=_check_device)


# Bundles and datasets

Bundle = Annotated[Path, input_folder(_BUNDLE_HELP)]
ServedBundle = Annotated[
    str | None,
    typer.Option(
        help=_BUNDLE_HELP[:-1] + ", or the URL of a store.", show_default="VIP5_BUNDLE", callback=_check_folder_or_url
    ),
]
Domain = Annotated[str, typer.Option(help="The name of the domain.", show_default=False)]
Data = Annotated[Path, input_folder("A dataset that vip5 data made: a folder with dataset.json.")]

# Where and how the model runs

Device = Annotated[str, _device(default=True)]
ServedDevice = Annotated[str | None, _device(default="cpu")]
TrainingDevice = Annotated[str | None, _device(default="a GPU if there is one")]
Engine = Annotated[EngineName | None, typer.Option(help="What computes the model.", show_default="auto")]
NumThreads = Annotated[int | None, typer.Option(help="Number of CPU threads.", min=1, show_default="all cores")]

# Files that commands read

Catalog = Annotated[
    Path, input_file("Items: JSON lines (.jsonl, .jsonl.gz) or Parquet, with at least item_id and index.")
]
FeatureSource = Annotated[
    Path | None,
    input_path(
        "Image embeddings: a file that vip5 features encode wrote, a folder of <item_id>.npy, or a safetensors "
        "file with <same name>.ids.txt beside it."
    ),
]

# How commands write

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace what exists already; without this, a terminal asks.")]
Restart = Annotated[bool, typer.Option("--restart", help="Discard what an interrupted run left, and start anew.")]
