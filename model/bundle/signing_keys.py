"""Ed25519 keys that sign bundles, in PEM as OpenSSL writes them. Needs the extra signing."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from model.bundle.opened_file import Content, OpenedFile
from model.errors import ExistsError, SigningKeyError

MOST_BYTES = 1 << 20
"""Size limit of a file of keys."""
_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----\s[^-]*-----END PUBLIC KEY-----")
_NEW = "make one with vip5 bundle new-key"


def make_key(path: Path) -> str:
    """Write a new private key, which only its owner can read; returns the public key in PEM. Raises ExistsError."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ExistsError(f"{path} exists already, and a key that is overwritten is lost; give a new file") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(descriptor)
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def id_of(key: Ed25519PublicKey) -> str:
    """Names a key in files and messages: 32 hexadecimal digits of the public key's SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def is_signature(key: Ed25519PublicKey, signature: bytes, message: Content) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def read_public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Keys by id. Raises SigningKeyError for anything else in the file than keys, comments (#) and empty lines."""
    content = _content(path)
    if b"PRIVATE KEY" in content:
        raise SigningKeyError(f"{path} has a private key; keep that where bundles are signed, and give the public one")
    rest = _PUBLIC_KEY.sub(b"", content)
    if any(line.strip() and not line.startswith(b"#") for line in rest.splitlines()):
        raise SigningKeyError(f"{path} has a part that is no public key in PEM; remove or restore it")
    keys = [_public_key(pem, f"{path}: key {number}") for number, pem in enumerate(_PUBLIC_KEY.findall(content), 1)]
    if not keys:
        raise SigningKeyError(f"{path} has no public key; add the one that vip5 bundle new-key printed")
    return {id_of(key): key for key in keys}


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Raises SigningKeyError, also for a key with a password."""
    try:
        key = serialization.load_pem_private_key(_content(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{path} is not a private key in PEM without a password; {_NEW}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{path} is not an Ed25519 key; {_NEW}")
    return key


def _public_key(pem: bytes, where: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(f"{where} cannot be read; remove or restore it") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningKeyError(f"{where} is not Ed25519; {_NEW}")
    return key


def _content(path: Path) -> bytes:
    try:
        file = OpenedFile(path)
        content = bytes(file.read(0, min(file.size, MOST_BYTES + 1)))
    except OSError as error:
        raise SigningKeyError(f"{path} cannot be read: {error.strerror}; give a file of keys in PEM") from error
    if len(content) > MOST_BYTES:
        raise SigningKeyError(f"{path} has more than {MOST_BYTES} bytes; give a file of keys in PEM")
    return content
