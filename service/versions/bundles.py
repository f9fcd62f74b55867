"""Finds bundles by name, only below the configured folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from service.errors import UnknownBundleError

BUNDLE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def find_bundle(root: Path | None, name: str) -> Path:
    """The folder of a bundle.

    Raises UnknownBundleError if the name is invalid or unknown, or resolves to a path outside of the root.
    """
    if root is None:
        raise UnknownBundleError("VIP5_BUNDLES_ROOT is not set; set it to the folder that contains the bundles")
    if not BUNDLE_NAME.fullmatch(name):
        raise UnknownBundleError(
            f"{name[:128]!r} is not a valid bundle name; use 1 to 128 letters, digits, dots, hyphens and underscores, "
            "and no dot at the start"
        )
    folder = Path(os.path.realpath(root / name))  # not Path.resolve, which raises on symlink loops
    if not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        raise UnknownBundleError(f"there is no bundle {name!r} in VIP5_BUNDLES_ROOT; copy it there first")
    return folder
