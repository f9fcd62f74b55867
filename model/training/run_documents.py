"""From a parsed document to the structure of a run or sweep file; errors name the file, the line and the key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from model.errors import TrainingError
from model.training.toml_lines import KeyPath, TomlFile

T = TypeVar("T")

PAGE = "see docs/training.md"
_AT = re.compile(r" - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<place>\d+|\.\.\.)\]")
_FIELD = re.compile(r"^Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`$")
_ENUM = re.compile(r"^Invalid enum value (?P<value>.*)$")


@dataclass(frozen=True)
class Places:
    """Where the keys of a document stand: in a file, or in what a variant of a sweep changes in it."""

    base: TomlFile
    changes: TomlFile | None = None
    prefix: KeyPath = ()  # of the changes in their file

    def of(self, *path: str | int) -> str:
        """`<file>:<line>` of a key."""
        if self.changes is not None and self.changes.has((*self.prefix, *path[:1])):
            return self.changes.place((*self.prefix, *path))
        return self.base.place(path)


def convert(document: Mapping[str, Any], kind: type[T], places: Places) -> T:
    """Raises TrainingError, naming file, line, key and rule, for the first key that breaks one."""
    for path, number in _numbers(document, ()):
        if not math.isfinite(number):
            raise TrainingError(f"{places.of(*path)}: {named(path)} is {number}; give a finite number; {PAGE}")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        path, rule = _fault(document, kind, str(error))
        raise TrainingError(f"{places.of(*path)}: {rule}; {PAGE}") from error


def json_schema(kind: type[Any]) -> str:
    """The JSON schema of a file, for editors."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(head | msgspec.json.schema(kind), indent=2) + "\n"


def _numbers(part: object, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    """The floats of a document; TOML has inf and nan, which pass the bounds of some keys."""
    if isinstance(part, float):
        yield path, part
    elif isinstance(part, Mapping | list):
        for key, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from _numbers(value, (*path, key))


def _fault(document: Mapping[str, Any], kind: type[Any], message: str) -> tuple[KeyPath, str]:
    """The path of the key that breaks a rule, and the rule in words."""
    at = _AT.search(message)
    rule = message if at is None else message[: at.start()]
    path = _path(document, kind, "" if at is None else at["path"])
    field = _FIELD.match(rule)
    if field is not None:
        where, name = named(path) or "the file", field["name"]
        if field["fault"] == "missing required":
            return path, f"{where} lacks the key `{name}`"
        known = list(_schema_at(kind, path).get("properties", {}))
        return (*path, name), f"{where} has an unknown field `{name}`; {_suggestion(name, known)}"
    enum = _ENUM.match(rule)
    if enum is not None:
        value = enum["value"].strip("'")
        path = (*path, value) if at is not None and at["key"] else path
        where = named(path[:-1]) if at is not None and at["key"] else named(path)
        return path, f"{where} has the unknown value {value!r}; {_suggestion(value, _choices(kind, path))}"
    return path, f"{named(path)} is {_value(document, path)!r}; {rule[0].lower()}{rule[1:]}"


def named(path: Iterable[str | int]) -> str:
    """A key as people write it: `prompts.templates[1]`."""
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path).removeprefix(".")


def _suggestion(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(known)}"


def _path(document: Mapping[str, Any], kind: type[Any], text: str) -> KeyPath:
    """Msgspec's path, in which `[...]` is any key of a table."""
    path: list[str | int] = []
    for step in _STEP.finditer(text):
        if step["key"] is not None:
            path.append(step["key"])
        elif step["place"] != "...":
            path.append(int(step["place"]))
        else:
            path.append(_faulty_key(document, kind, path))
    return tuple(path)


def _faulty_key(document: Mapping[str, Any], kind: type[Any], path: list[str | int]) -> str:
    """The first key of a table without which the document has one fault less."""
    table = _value(document, path)
    for key, value in table.items():
        try:
            msgspec.convert(_with(document, path, {key: value}), kind)
        except msgspec.ValidationError:
            return str(key)
    return str(next(iter(table)))


def _with(document: Any, path: list[str | int], value: object) -> Any:  # noqa: ANN401  # a part of a document
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(document, list):
        return [_with(each, rest, value) if place == first else each for place, each in enumerate(document)]
    return {key: _with(each, rest, value) if key == first else each for key, each in document.items()}


def _value(document: Any, path: Iterable[str | int]) -> Any:  # noqa: ANN401  # a part of a document
    for key in path:
        document = document[key]
    return document


def _choices(kind: type[Any], path: KeyPath) -> list[str]:
    parent = _schema_at(kind, path[:-1])
    names = parent.get("propertyNames", {}).get("enum") or _schema_at(kind, path).get("enum", [])
    return [str(name) for name in names]


def _schema_at(kind: type[Any], path: KeyPath) -> Mapping[str, Any]:
    """The part of the structure's JSON schema that describes a key."""
    schema = msgspec.json.schema(kind)
    part: Mapping[str, Any] = schema
    for step in (None, *path):
        if step is not None:
            inner = part.get("properties", {}).get(step) if isinstance(step, str) else part.get("items")
            part = inner or part.get("additionalProperties") or {}
        options = [part, *part.get("anyOf", [])]
        reference = next((each["$ref"] for each in options if "$ref" in each), None)
        if reference is not None:
            part = schema["$defs"][reference.rpartition("/")[2]]
    return part
