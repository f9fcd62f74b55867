"""TOML with the line of every key: tomllib parses, but does not say where a key stands.

A key stands in the first line after which the text, with its open brackets closed, parses to a document that has it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from model.errors import TrainingError

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and places in arrays from the top of a document: ("domains", 0, "name")."""

_CLOSINGS = ("", "]", "}", "}]", "]}", "]]", "}]}", '"""', "'''")
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = re.compile(r" \(at end of document\)$")


@dataclass(frozen=True)
class TomlFile:
    """A parsed file. `document` is what tomllib made of it."""

    path: Path
    text: str
    document: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Raises TrainingError, naming the line, for a file that cannot be read or is not TOML."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {error.strerror}; check the path") from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise TrainingError(f"{path}:{line}: the file is not TOML: it is not UTF-8; save it as UTF-8") from error
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise TrainingError(_syntax_error(path, text, str(error))) from error

    def place(self, path: Sequence[str | int]) -> str:
        """`<file>:<line>` of a key, or of the innermost table that is there; the file alone for the whole document."""
        known = tuple(path)
        while known and not _has(self.document, known):
            known = known[:-1]
        line = self._line(known) if known else None
        return str(self.path) if line is None else f"{self.path}:{line}"

    def has(self, path: Sequence[str | int]) -> bool:
        """Whether the document has a key."""
        return _has(self.document, path)

    def _line(self, path: KeyPath) -> int | None:
        lines = self.text.splitlines()
        for number in range(1, len(lines) + 1):
            if any(_has(document, path) for document in _parsed("\n".join(lines[:number]))):
                return number
        return None


def _parsed(text: str) -> list[dict[str, Any]]:
    """What the beginning of a file parses to, once its brackets are closed; empty within a value."""
    found = []
    for closing in _CLOSINGS:
        try:
            found.append(tomllib.loads(text + closing))
        except tomllib.TOMLDecodeError:
            continue
    return found[:1]


def _has(document: object, path: Sequence[str | int]) -> bool:
    for key in path:
        if isinstance(key, int):
            if not isinstance(document, list) or key >= len(document):
                return False
            document = document[key]
        else:
            if not isinstance(document, dict) or key not in document:
                return False
            document = document[key]
    return True


def _syntax_error(path: Path, text: str, message: str) -> str:
    """Tomllib's message with the place in front, and the line that it means."""
    lines = text.splitlines() or [""]
    position = _POSITION.search(message)
    number = int(position[1]) if position is not None else len(lines)
    rule = _AT_END.sub("; the file ends too early", _POSITION.sub("", message))
    shown = lines[number - 1].strip() if number <= len(lines) else ""
    quoted = f" in {shown!r}" if shown else ""
    return f"{path}:{number}: the file is not TOML: {rule[0].lower()}{rule[1:]}{quoted}; correct the line"
