"""How entries and states are written and read, in files and in Redis: the only place that knows their bytes.

Each entry, and each domain of a snapshot, has a `format`; without one it is 1, which the releases before wrote. A
release that adds what older readers may ignore, such as a field with a default, keeps FORMAT. One whose entries they
would misread raises it, and they skip these entries. Unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from service.versions.state import ENTRIES, STATES, CatalogEntry, FeaturesEntry, RolesEntry, States

FORMAT = 1
MAX_SHOWN = 60

AnyEntry: TypeAlias = RolesEntry | CatalogEntry | FeaturesEntry


class UnreadableError(Exception):
    """Bytes that this release cannot read, because they are damaged or of a newer release. The text says which."""


def encode_entry(entry: AnyEntry) -> bytes:
    return to_json({**ENTRIES.dump_python(entry, mode="json"), "format": FORMAT})


def decode_entry(content: bytes | None) -> AnyEntry:
    """The entry in the field `entry` of a stream, or in a line of a file. Raises UnreadableError."""
    if content is None:
        raise UnreadableError("it has no field `entry`")
    fields = _json_object(content)
    _check_format(fields)
    try:
        return ENTRIES.validate_json(content)
    except ValidationError as error:
        if error.errors()[0]["type"] == "union_tag_invalid":
            raise UnreadableError(f"its kind, {_shown(fields['kind'])}, is unknown to this release") from error
        raise UnreadableError(_first_fault(error)) from error


def encode_states(states: States) -> bytes:
    domains = STATES.dump_python(dict(states), mode="json")
    return to_json({name: {**fields, "format": FORMAT} for name, fields in domains.items()})


def decode_states(content: bytes) -> States:
    """Raises UnreadableError."""
    for domain in _json_object(content).values():
        if isinstance(domain, dict):
            _check_format(domain)
    try:
        return STATES.validate_json(content)
    except ValidationError as error:
        raise UnreadableError(_first_fault(error)) from error


def _json_object(content: bytes) -> Mapping[str, object]:
    try:
        found = from_json(content)
    except ValueError as error:
        raise UnreadableError("it is not JSON") from error
    if not isinstance(found, dict):
        raise UnreadableError("it is not a JSON object")
    return found


def _check_format(fields: Mapping[str, object]) -> None:
    given = fields.get("format", FORMAT)
    if not isinstance(given, int) or given > FORMAT:
        raise UnreadableError(f"its format is {_shown(given)}, and this release reads formats up to {FORMAT}")


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    return f"{_shown(where)}: {fault['msg']}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
