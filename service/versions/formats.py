"""How entries and states are written and read, in files and in Redis: the only place that knows their bytes.

Each entry, and each domain of a snapshot, has a `format`; without one it is 1, which the releases before wrote. A
release that adds what older readers may ignore, such as a field with a default, keeps FORMAT. One whose entries they
would misread raises it, and they skip these entries. Unknown fields are ignored.

A signed entry ends with the fields `after`, the signature of the entry before, and `mac`, over all bytes before it. A
signed snapshot begins with `signed MAC `; the `tip` of each domain is the signature of its last entry. Readers without
a secret ignore all of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from service.versions.state import ENTRIES, STATES, AnyEntry, States

FORMAT = 1
MAX_SHOWN = 60
ENTRY_SIGNATURE = re.compile(rb',"mac":"([0-9a-f]{64})"\}')
STATES_SIGNATURE = re.compile(rb"signed ([0-9a-f]{64}) ")
SIGNATURE_BYTES = len(b',"mac":""}') + 64

Sign: TypeAlias = Callable[[bytes], str]


class UnreadableError(Exception):
    """Bytes that this release cannot read, because they are damaged or of a newer release. The text says which."""


@dataclass(frozen=True)
class Place:
    """Which entry it is, and the signature of the one of its domain before it."""

    domain: str
    revision: int
    after: str


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
    signed = split_states(content)
    content = content if signed is None else signed[0]
    for domain in _json_object(content).values():
        if isinstance(domain, dict):
            _check_format(domain)
    try:
        return STATES.validate_json(content)
    except ValidationError as error:
        raise UnreadableError(_first_fault(error)) from error


def signed_entry(content: bytes, after: str, sign: Sign) -> bytes:
    body = content.removesuffix(b"}") + b',"after":"' + after.encode() + b'"'
    return body + b',"mac":"' + sign(body).encode() + b'"}'


def split_entry(content: bytes) -> tuple[bytes, str] | None:
    """What was signed of an entry, and the signature; None if there is none."""
    found = ENTRY_SIGNATURE.fullmatch(content[-SIGNATURE_BYTES:])
    return None if found is None else (content[:-SIGNATURE_BYTES], found[1].decode())


def place_of(content: bytes) -> Place:
    """The place of a signed entry, whatever its format and kind are. Raises UnreadableError."""
    fields = _json_object(content)
    domain, revision, after = fields.get("domain"), fields.get("revision"), fields.get("after")
    if not isinstance(domain, str) or not isinstance(revision, int) or not isinstance(after, str):
        raise UnreadableError("it names no domain, revision and entry before")
    return Place(domain, revision, after)


def signed_states(states: States, tips: Mapping[str, str], sign: Sign) -> bytes:
    domains: Mapping[str, Mapping[str, object]] = from_json(encode_states(states))
    body = to_json({name: {**fields, "tip": tips[name]} for name, fields in domains.items()})
    return b"signed " + sign(body).encode() + b" " + body


def split_states(content: bytes) -> tuple[bytes, str] | None:
    """What was signed of a snapshot, and the signature; None if there is none."""
    found = STATES_SIGNATURE.match(content)
    return None if found is None else (content[found.end() :], found[1].decode())


def is_of_newer_release(states: bytes) -> bool:
    """Whether a domain of a snapshot has a format that this release does not read. Raises UnreadableError."""
    domains = [domain for domain in _json_object(states).values() if isinstance(domain, dict)]
    return any(isinstance(given := each.get("format"), int) and given > FORMAT for each in domains)


def decode_tips(content: bytes) -> Mapping[str, str]:
    """The signatures of the last entries in a snapshot, by domain; none in one that is not signed."""
    signed = split_states(content)
    domains = {} if signed is None else _json_object(signed[0])
    tips = {name: fields.get("tip") for name, fields in domains.items() if isinstance(fields, dict)}
    return {name: tip for name, tip in tips.items() if isinstance(tip, str)}


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
