"""The commands of `vip5` as typer was told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from typer import Typer
from typer.models import ArgumentInfo, OptionInfo

from service.cli import app


@dataclass(frozen=True)
class Option:
    """An option as a command declares it."""

    name: str  # with its dashes
    type: object  # of one value
    info: OptionInfo


@dataclass(frozen=True)
class Command:
    """A command with the words that run it."""

    words: tuple[str, ...]
    callback: Callable[..., Any]

    @property
    def options(self) -> list[Option]:
        hints = get_type_hints(self.callback, include_extras=True)
        return [_option(name, hint) for name, hint in hints.items() if name != "return" and not _is_argument(hint)]

    def __str__(self) -> str:
        return " ".join(self.words)


def commands(group: Typer = app, words: tuple[str, ...] = ()) -> Iterator[Command]:
    for each in group.registered_commands:
        assert each.callback is not None
        name = each.name or each.callback.__name__.replace("_", "-")
        yield Command((*words, name), each.callback)
    for group_info in group.registered_groups:
        assert group_info.typer_instance is not None
        name = group_info.name if isinstance(group_info.name, str) else ""
        yield from commands(group_info.typer_instance, (*words, *([name] if name else [])))


def _is_argument(hint: object) -> bool:
    return any(isinstance(each, ArgumentInfo) for each in get_args(hint)[1:])


def _option(name: str, hint: object) -> Option:
    base, *extras = get_args(hint)
    (info,) = (each for each in extras if isinstance(each, OptionInfo))
    names = [info.default, *(info.param_decls or ())]
    given = [each for each in names if isinstance(each, str) and each.startswith("-")]
    assert len(given) <= 1, "other spellings are for service/cli/old_names.py"
    return Option(given[0] if given else f"--{name.replace('_', '-')}", _of_one_value(base), info)


def _of_one_value(base: object) -> object:
    if get_origin(base) in {Union, UnionType}:
        (base,) = (each for each in get_args(base) if each is not NoneType)
    return get_args(base)[0] if get_origin(base) is list else base


COMMANDS = tuple(commands())
