"""Spellings that options had before they were named the same everywhere: accepted, but shown nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

RENAMED: Mapping[str, Mapping[str, str]] = {
    "bench": {"--requests": "--num-requests", "--write": "--out"},
    "evaluate": {"--users": "--num-users", "--text-only": "--without-images"},
    "features put": {"--feature": "--features"},
    "features import": {"--folder": "--features"},
}
"""By command: the old spelling of an option, and its name."""

BY_POSITION: Mapping[str, str] = {
    "bundle verify": "--bundle",
    "bundle show": "--bundle",
    "bundle export-onnx": "--bundle",
    "data show": "--data",
}
"""By command: the option whose value may stand by itself, as in `vip5 bundle show BUNDLE`."""


class CommandWithOldNames(TyperCommand):
    """Rewrites old spellings before the options are parsed, so that each command knows the present names only."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # typer does not export the type
        command = ctx.command_path.partition(" ")[2]
        args = [_renamed(RENAMED.get(command, {}), arg) for arg in args]
        if command in BY_POSITION and not ctx.resilient_parsing:
            args = self._named(ctx, args, BY_POSITION[command])
        return super().parse_args(ctx, args)

    def _named(self, ctx: Any, args: list[str], option: str) -> list[str]:  # noqa: ANN401
        """With the option's name before its value, where that stands by itself."""
        values, places, _ = self.make_parser(ctx).parse_args(args=list(args))
        if len(places) != 1 or option.removeprefix("--") in values:
            return args
        rest = list(args)
        rest.remove(places[0])
        return [f"{option}={places[0]}", *rest]


def _renamed(names: Mapping[str, str], arg: str) -> str:
    option, equals, value = arg.partition("=")
    return f"{names.get(option, option)}{equals}{value}"
