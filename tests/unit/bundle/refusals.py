"""How the tests of this folder say that something is refused, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.errors import Vip5Error

SHARED = Path(__file__).parents[3].parent / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the recorded models and catalogs are not beside the repo"
)


@contextmanager
def refused(code: str, message: str) -> Iterator[None]:
    """The block must raise an error with exactly this code, whose message contains the text."""
    with pytest.raises(Vip5Error, match=re.escape(message)) as raised:
        yield
    assert raised.value.code == code
