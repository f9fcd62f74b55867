"""What the releases before and after this one write into a journal.

`recorded/` was written by the release before formats had a version.
"""

from __future__ import annotations

import json
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"
FORMER_ENTRIES = (RECORDED / "entries.jsonl").read_bytes().splitlines()
FORMER_STATES = (RECORDED / "states.json").read_bytes().strip()


def next_entry(revision: int, *, format: int = 2, kind: str = "prices", domain: str = "toys") -> bytes:  # noqa: A002
    """An entry of a kind that this release does not know."""
    fields = {"domain": domain, "revision": revision, "prices": {"a": 1.5}, "kind": kind, "format": format}
    return json.dumps(fields, separators=(",", ":")).encode()


def next_states(format: int = 2) -> bytes:  # noqa: A002
    state = json.loads(FORMER_STATES)["toys"]
    return json.dumps({"toys": {**state, "prices": {"a": 1.5}, "format": format}}).encode()
