"""`vip5 keys`: API keys of clients."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.failures import UsageError

app = typer.Typer(help="Make API keys.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make API keys."""


@app.command(epilog="Example: vip5 keys new --id shop")
def new(
    key_id: Annotated[
        str, typer.Option("--id", help="The client that gets the key; its keys share the id.", show_default=False)
    ],
) -> None:
    """Print a new key, which is not shown again, and the line to add to VIP5_API_KEYS_FILE."""
    from service.errors import ApiKeysError
    from service.http.api_keys import new_key

    try:
        made = new_key(key_id)
    except ApiKeysError as error:
        raise UsageError(str(error)) from error
    typer.echo(f"key:  {made.key}")
    typer.echo(f"line: {made.line}")
