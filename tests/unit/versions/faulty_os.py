"""The functions of `os` and `fcntl` that the journal's file uses, with a fault at one call."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import pytest

from service.versions import append_file

CALLS = frozenset(
    {"close", "fchmod", "flock", "fstat", "fsync", "ftruncate", "open", "read", "rename", "stat", "unlink", "write"}
)

Kind: TypeAlias = Literal[
    "refused", "done but refused", "short", "torn", "killed before", "killed after", "killed torn"
]
"""`torn` writes half and fails; `short` writes half and says so."""
KILLED: tuple[Kind, ...] = ("killed before", "killed after", "killed torn")


class KilledError(BaseException):
    """The process is dead: nothing that it would do afterwards happens."""


@dataclass(frozen=True)
class Fault:
    """What happens at the calls number `at`, `at + 1`, and so on."""

    at: int
    kind: Kind
    error: int = errno.EIO
    num_calls: int = 1

    def is_possible(self, name: str) -> bool:
        return name == "write" or self.kind not in ("short", "torn", "killed torn")


class FaultyOs:
    """In place of the modules `os` and `fcntl`. Does not wait for the disk."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.names: list[str] = []  # of the calls
        self._is_dead = False
        self._is_off = False
        self._open: set[int] = set()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # a function of os or fcntl
        function = getattr(fcntl if hasattr(fcntl, name) else os, name)
        return partial(self._call, name, function) if name in CALLS and not self._is_off else function

    @contextmanager
    def off(self) -> Iterator[None]:
        """What another process does meanwhile."""
        self._is_off = True
        yield
        self._is_off = False

    def _call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        if self._is_dead:
            raise KilledError
        number, fault = len(self.names), self.fault
        self.names.append(name)
        if fault is None or not fault.at <= number < fault.at + fault.num_calls or not fault.is_possible(name):
            return self._real(name, function, *args)
        if fault.kind == "killed before":
            self._die()
        if fault.kind == "refused" and name != "close":  # Linux closes in any case
            raise OSError(fault.error, os.strerror(fault.error))
        if "torn" in fault.kind or fault.kind == "short":
            fd, content = args
            args = (fd, content[: len(content) // 2])
        result = self._real(name, function, *args)
        if fault.kind in KILLED:
            self._die()
        if fault.kind == "short":
            return result
        if name == "open":
            self._real("close", os.close, result)
        raise OSError(fault.error, os.strerror(fault.error))

    def _real(self, name: str, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        if name == "fsync":
            return None
        result = function(*args)
        if name == "open":
            self._open.add(result)
        elif name == "close":
            self._open.discard(args[0])
        return result

    def _die(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._is_dead = True
        raise KilledError


@contextmanager
def faulty_os(fault: Fault | None = None) -> Iterator[FaultyOs]:
    double = FaultyOs(fault)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(append_file, "os", double)
        patch.setattr(append_file, "fcntl", double)
        yield double
