"""A progress bar for long work at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress as Bar

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being done, the steps done, and all steps (None: unknown)."""


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """The bar stands on standard error while it is a terminal, and is gone at the end."""
    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def report(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report
