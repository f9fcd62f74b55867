"""Bundles by name: those below one configured folder, and no others."""

from __future__ import annotations

import os
import re
from pathlib import Path

from service.errors import UnknownBundleError

BUNDLE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def find_bundle(root: Path | None, name: str) -> Path:
    """The folder of a bundle. Raises UnknownBundleError for a name that is none, or leads out of the root."""
    if root is None:
        raise UnknownBundleError("no folder of bundles is configured; set VIP5_BUNDLES_ROOT")
    if not BUNDLE_NAME.fullmatch(name):
        raise UnknownBundleError(
            f"{name[:128]!r} cannot name a bundle; a name is one part of a path, of letters, digits, dots, hyphens and "
            "underscores, and does not begin with a dot"
        )
    folder = Path(os.path.realpath(root / name))  # not Path.resolve, which raises for links that lead to themselves
    if not folder.is_relative_to(root.resolve()) or not folder.is_dir():
        raise UnknownBundleError(f"there is no bundle {name!r} in the folder of bundles; put it there first")
    return folder
