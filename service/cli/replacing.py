"""The one rule for what exists already: it is replaced with --replace, or where a person at a terminal agrees."""

from __future__ import annotations

import sys

import typer

from service.cli.failures import UsageError


def may_replace(present: str | None, remedy: str, *, replace: bool) -> bool:
    """Whether to replace what `present` describes; None describes nothing.

    Asks on a terminal. Raises UsageError with the `remedy` if nobody allows it. The command must write the new beside
    the old and exchange them at the end, so that a failure leaves the old.
    """
    if present is None or replace:
        return replace
    if sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(f"{present}. Replace it?", err=True):
        return True
    raise UsageError(f"{present}; {remedy}, or give --replace")
