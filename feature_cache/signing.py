"""Message authentication codes of what is kept in Redis: HMAC-SHA256, with a key of its own for each purpose."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Purpose: TypeAlias = Literal["journal", "features", "replicas"]

MIN_SECRET = 16
"""Characters."""
DIGEST = "sha256"
SHORT_BYTES = 16


@dataclass(frozen=True)
class Signing:
    """The secret that signs, another one that is accepted too, and whether what is unsigned is accepted."""

    secret: str = field(repr=False)
    other: str | None = field(default=None, repr=False)
    accepts_unsigned: bool = False

    def signer(self, purpose: Purpose, *context: str) -> Signer:
        """Signs for one purpose in one context, such as a service; a code of another context is not valid."""
        secrets = (self.secret, *(() if self.other is None else (self.other,)))
        keys = (_digest(_digest(each.encode(), purpose.encode()), _joined(context)) for each in secrets)
        return Signer(tuple(keys), self.accepts_unsigned)


@dataclass(frozen=True)
class Signer:
    """The first key signs, all are accepted."""

    keys: tuple[bytes, ...] = field(repr=False)
    accepts_unsigned: bool = False

    def sign(self, *parts: str | bytes) -> bytes:
        """A code of 32 bytes over the parts and where each ends."""
        return _digest(self.keys[0], _joined(parts))

    def is_valid(self, code: bytes, *parts: str | bytes) -> bool:
        return any(hmac.compare_digest(code, _digest(key, _joined(parts))) for key in self.keys)

    def short_sign(self, content: bytes) -> bytes:
        """A code of SHORT_BYTES over a content whose parts have known lengths; quick."""
        return _digest(self.keys[0], content)[:SHORT_BYTES]

    def is_short_valid(self, code: bytes, content: bytes) -> bool:
        return any(hmac.compare_digest(code, _digest(key, content)[:SHORT_BYTES]) for key in self.keys)


def _joined(parts: tuple[str | bytes, ...]) -> bytes:
    return b"".join(_framed(parts))


def _framed(parts: tuple[str | bytes, ...]) -> Iterator[bytes]:
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        yield len(content).to_bytes(8, "little")
        yield content


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, DIGEST)
