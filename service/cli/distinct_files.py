"""The one rule for files that a command reads and writes: what it writes takes no place of another of its files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from service.cli.failures import UsageError


def with_distinct_files(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, which raises UsageError before it begins if an output is one of its inputs or another output."""

    @functools.wraps(command)
    def checked(**values: Any) -> Any:  # noqa: ANN401  # of all commands
        _check(command, values)
        return command(**values)

    return checked


def _check(command: Callable[..., Any], values: Mapping[str, object]) -> None:
    files = list(_files(command, values))
    for place, (option, out, is_output) in enumerate(files):
        for other, path, is_other_output in files[:place] + files[place + 1 :]:
            if is_output and _is_one_file(out, path):
                does = "writes" if is_other_output else "reads"
                raise UsageError(f"{option} is {out}, which {other} {does}; name another file")


def _files(command: Callable[..., Any], values: Mapping[str, object]) -> Iterator[tuple[str, Path, bool]]:
    """Option, path and whether it is written, of each file that is named."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        info = next((each for each in get_args(hint)[1:] if isinstance(each, ParameterInfo)), None)
        if not isinstance(info, (OptionInfo, ArgumentInfo)) or not (info.exists or not info.dir_okay):
            continue
        given = values.get(name)
        option = f"--{name.replace('_', '-')}" if isinstance(info, OptionInfo) else str(info.metavar or name)
        for path in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(path, Path):
                yield option, path, not info.exists


def _is_one_file(out: Path, path: Path) -> bool:
    """Pipes and devices may be named twice, as a terminal is read and written."""
    if out.exists() and path.exists():
        return out.is_file() and out.samefile(path)
    return out.resolve() == path.resolve()
