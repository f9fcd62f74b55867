"""The command `vip5`: sub-commands have modules of their own, errors become one line and an exit status here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import typer

from feature_cache.errors import FeatureCacheError
from model.errors import Vip5Error
from service.cli import benching, bundles, data, evaluating, features, importing, keys, predicting, serving, training

app = typer.Typer(
    name="vip5",
    help="Serve multimodal generative recommenders of the VIP5 kind.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(importing.app, name="import")
app.add_typer(bundles.app, name="bundle")
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")
app.add_typer(keys.app, name="keys")
app.command(epilog=serving.EXAMPLE)(serving.serve)
app.command(epilog=predicting.EXAMPLE)(predicting.predict)
app.command(epilog=benching.EXAMPLE)(benching.bench)
app.command(epilog=training.EXAMPLE)(training.train)
app.command(epilog=training.SWEEP_EXAMPLE)(training.sweep)
app.command(epilog=evaluating.EXAMPLE)(evaluating.evaluate)
app.command(epilog=evaluating.COMPARE_EXAMPLE)(evaluating.compare)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: 0 on success, 2 on wrong usage, 1 on failure with one line on standard error."""
    try:
        app(args=arguments, prog_name="vip5")
    except (Vip5Error, FeatureCacheError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    raise SystemExit(1)
