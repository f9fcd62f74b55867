"""`vip5 keys`: API keys for those who ask."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Make API keys.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make API keys."""


@app.command(epilog="Example: vip5 keys new --id shop")
def new(
    key_id: Annotated[
        str, typer.Option("--id", help="Who gets the key; two keys may share an id.", show_default=False)
    ],
) -> None:
    """Print a new key, which is shown this once, and the line of VIP5_API_KEYS_FILE that lets it in."""
    from service.http.api_keys import new_key

    made = new_key(key_id)
    typer.echo(f"key:  {made.key}")
    typer.echo(f"line: {made.line}")
