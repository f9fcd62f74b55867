"""The sweep file, in TOML: a base run file, and what each variant changes in it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from model.prompts.templates import DEFAULT_SEQUENTIAL


class Variant(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A name, the keys that differ from the base run, and the base run's tables that are left out."""

    name: str
    set: dict[str, Any] = msgspec.field(default_factory=dict)
    without: tuple[str, ...] = ()


class SweepFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All keys of a sweep file. `held_out` has the dataset to evaluate a domain on, if not its own, by domain."""

    base: str
    out: str
    variants: tuple[Variant, ...]
    templates: tuple[str, ...] = (DEFAULT_SEQUENTIAL,)
    num_users: int | None = None
    baselines: tuple[str, ...] = ()
    held_out: dict[str, str] = msgspec.field(default_factory=dict)
