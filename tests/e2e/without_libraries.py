"""Runs commands of `vip5` as if libraries were not installed, each in a process that was forked from a warm one.

Reads {"commands": {words: arguments}, "libraries": [...], "singles": [...],
"missing": [...] or null} from standard input and writes what
each command does. If `missing` is null, that is: without all libraries, and if this is a failure, with all of them and
without each of "singles" that it imports then.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

WARM = (
    "torch",
    "torch._dynamo",  # transformers and accelerate import these two
    "torch.distributed.tensor",
    "pyarrow.parquet",
    "tokenizers",
    "safetensors.torch",
    "pydantic_settings",
    "rich.progress",
)


class _Without:
    """A finder that does not find some libraries, as where they are not installed."""

    def __init__(self, finder: Any, missing: frozenset[str]) -> None:  # noqa: ANN401  # finders have no common type
        self._finder = finder
        self._missing = missing

    def find_spec(self, name: str, *rest: Any) -> Any:  # noqa: ANN401
        return None if name.partition(".")[0] in self._missing else self._finder.find_spec(name, *rest)

    def invalidate_caches(self) -> None:
        getattr(self._finder, "invalidate_caches", lambda: None)()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._finder, name)


def outcome(arguments: list[str], libraries: list[str], missing: Iterable[str]) -> dict[str, Any]:
    """Exit status (None for a traceback), the lines on standard error, and the libraries that were imported."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        sys.meta_path[:] = [_Without(finder, frozenset(missing)) for finder in sys.meta_path]
        told = io.StringIO()
        status: object = None
        try:
            from service.cli import main

            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                main(arguments)
        except SystemExit as exited:
            status = exited.code
        except BaseException as error:  # noqa: BLE001  # a traceback, which is what the test looks for
            told.write(repr(error))
        imported = [name for name in libraries if sys.modules.get(name) is not None]
        result = {"status": status, "lines": told.getvalue().splitlines(), "imported": imported}
        with os.fdopen(writing, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    result = json.loads(found)
    assert isinstance(result, dict)
    return result


def main() -> None:
    asked = json.load(sys.stdin)
    libraries: list[str] = asked["libraries"]
    for name in WARM:
        importlib.import_module(name)
    import service.cli  # noqa: F401

    early = [name for name in libraries if name in sys.modules]
    assert not early, f"{early} are imported before any command runs"
    found: dict[str, Any] = {}
    for words, rest in asked["commands"].items():
        arguments = [*words.split(), *rest]
        if asked["missing"] is not None:
            found[words] = outcome(arguments, libraries, asked["missing"])
            continue
        found[words] = {"all": outcome(arguments, libraries, libraries)}
        if found[words]["all"]["lines"] and "vip5-serve[" in found[words]["all"]["lines"][-1]:
            whole = outcome(arguments, libraries, ())
            singles = [name for name in whole["imported"] if name in asked["singles"]]
            found[words] |= {"whole": whole} | {name: outcome(arguments, libraries, [name]) for name in singles}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
