"""How long work reports where it is; who shows that, and where, is the caller's concern."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and the total, or None where that is not known."""


def no_progress(_what: str, _done: int, _total: int | None) -> None:
    """Report to nobody."""
