"""Where indexes and pulled bundles are kept by default. Imports little, because settings are read first."""

from __future__ import annotations

import os
from pathlib import Path


def usual_folder() -> Path | None:
    """vip5-serve/indexes in the user's cache folder; None for a user without a home."""
    return user_cache("indexes")


def user_cache(name: str) -> Path | None:
    """A folder below vip5-serve in the user's cache folder; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "vip5-serve" / name
