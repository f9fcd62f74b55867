"""Signatures of bundles: who vouches for a bundle, where its manifest only says what belongs to it.

manifest.json.sig, beside the manifest, holds Ed25519 signatures (RFC 8032) of the manifest's bytes after a fixed
prefix, one for each key, so that keys can be rotated. Imports `cryptography` only when a signature is made or checked.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from model.bundle.documents import parse_json_object
from model.bundle.folders import replacing
from model.bundle.layout import SIGNATURES
from model.bundle.manifest import verify_files
from model.bundle.opened_file import Content, OpenedFile
from model.errors import BundleError, SigningKeyError, UntrustedBundleError

FORMAT_VERSION = 1
MOST_BYTES = 1 << 20
"""Size limit of manifest.json.sig."""
_PREFIX = b"vip5-serve bundle manifest 1\0"  # so that a signature of anything else is none of a bundle
_REMEDY = "do not trust its source, or sign it with vip5 bundle sign"


@dataclass(frozen=True)
class TrustedKeys:
    """A file of public keys in PEM, read anew at every check, so that a key that is removed is trusted no more."""

    path: Path

    def check(self, bundle: str, document: Content, signatures: Content) -> str:
        """The id of a trusted key that signed the manifest `document`.

        Raises UntrustedBundleError if there is none, also if the keys cannot be read.
        """
        from model.bundle.signing_keys import is_signature, read_public_keys

        try:
            trusted = read_public_keys(self.path)
        except SigningKeyError as error:
            raise UntrustedBundleError(f"{bundle} cannot be trusted: {error}") from error
        found = _parse(signatures, bundle)
        known = sorted(found.keys() & trusted.keys())
        for key_id in known:
            if is_signature(trusted[key_id], found[key_id], _PREFIX + document):
                return key_id
        if known:
            raise UntrustedBundleError(f"{bundle}: {SIGNATURES} is not the signature of this manifest.json; {_REMEDY}")
        raise UntrustedBundleError(
            f"{bundle} is signed by the keys {', '.join(sorted(found)) or 'none'}, but trusted are only "
            f"{', '.join(sorted(trusted))}; {_REMEDY}"
        )


def trusted_keys(path: Path | None) -> TrustedKeys | None:
    """None if any bundle may be served."""
    return None if path is None else TrustedKeys(path)


def open_signatures(root: Path) -> OpenedFile:
    """Raises UntrustedBundleError if there is no such file of at most `MOST_BYTES`."""
    try:
        file = OpenedFile(root / SIGNATURES)
    except FileNotFoundError:
        raise UntrustedBundleError(f"{root.name} is not signed: it has no {SIGNATURES}; {_REMEDY}") from None
    except OSError as error:
        raise UntrustedBundleError(f"{root.name}: {SIGNATURES} cannot be read: {error.strerror}; {_REMEDY}") from error
    if file.size > MOST_BYTES:
        file.close()
        raise UntrustedBundleError(
            f"{root.name}: {SIGNATURES} has {file.size} bytes, the limit is {MOST_BYTES}; {_REMEDY}"
        )
    return file


def sign_bundle(root: Path, key_path: Path) -> str:
    """Verify a bundle's files and add a signature of its manifest; returns the key's id.

    Keeps other keys' signatures, and replaces an earlier one of this key. Raises SigningKeyError and IntegrityError.
    """
    from model.bundle.signing_keys import id_of, read_private_key

    key = read_private_key(key_path)
    manifest = verify_files(root)
    key_id = id_of(key.public_key())
    signed = {**_present(root), key_id: key.sign(_PREFIX + manifest.document)}
    texts = {each: base64.b64encode(signature).decode() for each, signature in sorted(signed.items())}
    with replacing(root / SIGNATURES) as file:
        file.write(json.dumps({"format_version": FORMAT_VERSION, "signatures": texts}, indent=2).encode() + b"\n")
        os.fchmod(file.fileno(), 0o644)
    return key_id


def _present(root: Path) -> dict[str, bytes]:
    if not (root / SIGNATURES).exists():
        return {}
    file = open_signatures(root)
    try:
        return _parse(file.content(), root.name)
    finally:
        file.close()


def _parse(content: Content, bundle: str) -> dict[str, bytes]:
    """Signatures by key."""
    try:
        document = parse_json_object(content, SIGNATURES.name)
        version, texts = document["format_version"], document["signatures"]
        found = {key: base64.b64decode(text, validate=True) for key, text in texts.items()}  # type: ignore[attr-defined]
    except (BundleError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UntrustedBundleError(
            f"{bundle}: {SIGNATURES} is damaged ({error}); copy it again, or remove it and sign the bundle again"
        ) from error
    if version != FORMAT_VERSION:
        raise UntrustedBundleError(
            f"{bundle}: {SIGNATURES} has the format_version {version!r}, but this program reads {FORMAT_VERSION}; sign "
            "the bundle again"
        )
    return found
