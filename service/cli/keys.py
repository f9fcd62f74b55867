"""`vip5 keys`: API keys of clients, and tokens of administrators."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.failures import UsageError

app = typer.Typer(help="Make API keys and admin tokens.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make API keys and admin tokens."""


@app.command(epilog="Example: vip5 keys new --id shop")
def new(
    key_id: Annotated[
        str, typer.Option("--id", help="The client that gets the key; its keys share the id.", show_default=False)
    ],
    domains: Annotated[
        list[str] | None, typer.Option("--only-domain", help="A domain that it may use; repeatable (default: all).")
    ] = None,
    routes: Annotated[
        list[str] | None,
        typer.Option(
            "--route", help="recommend, explain, browse, users or events; repeatable (default: the first three)."
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Weight of its share of the engine while several keys wait (default: 1).")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(help="Most tokens per time, such as 1000000/hour (default: no limit).")
    ] = None,
) -> None:
    """Print a new key, which is not shown again, and the line to add to VIP5_API_KEYS_FILE."""
    from service.errors import ApiKeysError
    from service.http.api_keys import new_key

    try:
        made = new_key(key_id, domains=domains or None, routes=routes or None, share=share, quota=quota)
    except ApiKeysError as error:
        raise UsageError(str(error)) from error
    typer.echo(f"key:  {made.key}")
    typer.echo(f"line: {made.line}")


@app.command(epilog="Example: vip5 keys new-admin --id stock-robot --right read --right catalog")
def new_admin(
    token_id: Annotated[str, typer.Option("--id", help="Who gets the token; logs name this id.", show_default=False)],
    rights: Annotated[
        list[str] | None, typer.Option("--right", help="read, catalog or roles; repeatable (default: all).")
    ] = None,
) -> None:
    """Print a new token for /admin, which is not shown again, and the line to add to VIP5_ADMIN_TOKENS_FILE."""
    from service.errors import ApiKeysError
    from service.http.admin_tokens import RIGHTS, new_admin_token

    try:
        made = new_admin_token(token_id, rights or RIGHTS)
    except ApiKeysError as error:
        raise UsageError(str(error)) from error
    typer.echo(f"token: {made.key}")
    typer.echo(f"line:  {made.line}")
