"""Keys and signatures for tests."""

from __future__ import annotations

from pathlib import Path

from model.bundle.signatures import sign_bundle
from model.bundle.signing_keys import make_key


def key_pair(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """Files of a new private key and its public key."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    public.write_text(make_key(private), encoding="utf-8")
    return private, public


def signed(root: Path, *keys: Path) -> Path:
    for key in keys:
        sign_bundle(root, key)
    return root
