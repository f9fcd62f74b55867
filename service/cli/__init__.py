"""The command `vip5`: each sub-command has a module of its own, and errors become one line and an exit status here."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from service.cli import benching, bundles, data, evaluating, features, importing, keys, predicting, serving, training
from service.cli.distinct_files import with_distinct_files
from service.cli.failures import FAILURE, failure_of
from service.cli.old_names import CommandWithOldNames
from service.cli.terminal import can_be_written, fill_standard_descriptors

DISTRIBUTION = "vip5-serve"

app = typer.Typer(
    name="vip5",
    help="Serve multimodal generative recommenders of the VIP5 kind.",
    epilog="Exit status: 0 success, 1 failure, 2 wrong usage (an option or a setting has to change).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
_SERVE, _BUNDLES, _TRAIN = "Serve", "Bundles and image embeddings", "Train and evaluate"
app.command(epilog=serving.EXAMPLE, rich_help_panel=_SERVE)(serving.serve)
app.command(epilog=predicting.EXAMPLE, rich_help_panel=_SERVE)(predicting.predict)
app.command(epilog=benching.EXAMPLE, rich_help_panel=_SERVE)(benching.bench)
app.add_typer(keys.app, name="keys", rich_help_panel=_SERVE)
app.add_typer(importing.app, name="import", rich_help_panel=_BUNDLES)
app.add_typer(bundles.app, name="bundle", rich_help_panel=_BUNDLES)
app.add_typer(features.app, name="features", rich_help_panel=_BUNDLES)
app.add_typer(data.app, name="data", rich_help_panel=_TRAIN)
app.command(epilog=training.EXAMPLE, rich_help_panel=_TRAIN)(training.train)
app.command(epilog=training.SWEEP_EXAMPLE, rich_help_panel=_TRAIN)(training.sweep)
app.command(epilog=evaluating.EXAMPLE, rich_help_panel=_TRAIN)(evaluating.evaluate)
app.command(epilog=evaluating.COMPARE_EXAMPLE, rich_help_panel=_TRAIN)(evaluating.compare)


def _complete(group: typer.Typer) -> None:
    """What all commands have: old names, outputs that are no inputs, and help whose paragraphs fill the lines."""
    for command in group.registered_commands:
        command.cls = CommandWithOldNames
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        assert command.callback is not None
        command.callback = with_distinct_files(command.callback)
        command.help = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    for each in group.registered_groups:
        if each.typer_instance is not None:
            _complete(each.typer_instance)


_complete(app)


def _show_version(is_wanted: bool) -> None:  # noqa: FBT001  # typer calls back with the flag's value
    if is_wanted:
        typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def vip5(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Serve multimodal generative recommenders of the VIP5 kind."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit; `failures` says with which status."""
    fill_standard_descriptors()
    try:
        status: int | None = app(args=arguments, prog_name="vip5", standalone_mode=False)
    except Exception as error:
        failure = failure_of(error)
        is_read = can_be_written(sys.stderr)  # a log that nobody reads must not keep the process from ending
        if failure is None and is_read:
            raise
        status, line = failure or (FAILURE, "")
        if line and is_read:
            typer.echo(f"error: {line}", err=True)
    raise SystemExit(status or 0)
