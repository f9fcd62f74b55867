"""The demonstration's bundle again with a hash of its own: what an example may load and swap to."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from tests.conftest import ROOT

DEMONSTRATION = ROOT / "demo" / "bundle"


def add_summer(bundles: Path) -> Path:
    """Copy the demonstration to `bundles/summer`, with training records that differ in a blank line."""
    summer = Path(shutil.copytree(DEMONSTRATION, bundles / "summer"))
    manifest = json.loads((summer / "manifest.json").read_text(encoding="utf-8"))
    for name, record in manifest["files"].items():
        if name.endswith("training.json"):
            content = (summer / name).read_bytes() + b"\n"
            (summer / name).write_bytes(content)
            record |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (summer / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return summer
