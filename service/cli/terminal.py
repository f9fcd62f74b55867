"""How commands speak to a person at a terminal, and to the program or folder that takes what they write."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from model.progress import Progress

PATIENCE_MS = 2000
NUM_STANDARD = 3  # input, output and error


class _Rate(ProgressColumn):
    """How much is done in a second, of late."""

    def render(self, task: Task) -> Text:
        if task.speed is None:
            return Text("")
        return Text(f"{task.speed:.0f}/s" if task.speed >= 10 else f"{task.speed:.1f}/s")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Shows progress as a bar on standard error, if that is a terminal, and removes it at the end."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def report(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report


def fill_standard_descriptors() -> None:
    """Open the null device as standard input, output and error where the process was started without them.

    Otherwise files and connections get these numbers: libuv, the event loop, aborts the process when it closes one, and
    what a native library prints goes into a file or to a client. To be called before anything is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < NUM_STANDARD:
        os.set_inheritable(descriptor, True)  # noqa: FBT003  # the standard library's signature
    os.close(descriptor)


def can_be_written(stream: TextIO | None) -> bool:
    """Whether a line can be written without waiting for a pipe's reader for more than two seconds."""
    if stream is None:  # the process was started without it
        return False
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # no file, as in tests
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(PATIENCE_MS))


def make_folder_of(out: Path) -> None:
    """Make the folder that a file is to be written into."""
    out.parent.mkdir(parents=True, exist_ok=True)


def write_output(out: Path, content: bytes) -> None:
    """Write a file in its folder, which is made if it is missing; a failure leaves what was there."""
    from model.bundle.folders import write_whole

    make_folder_of(out)
    write_whole(out, content)


def print_json(document: object) -> None:
    typer.echo(json.dumps(document, indent=2))


def fact_table(title: str, facts: Mapping[str, str]) -> Table:
    """A table with a line for each fact, its name on the left."""
    table = Table(title=escape(title), title_justify="left", show_header=False, min_width=60)
    table.add_column()
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, escape(fact))
    return table
