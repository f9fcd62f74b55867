"""Random damage to bytes: what a broken disk, a bad editor or an attacker makes of a file."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_TEXTS = (
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"9" * 40,
    b"[" * 300,
    b'"\\ud800"',
    b"\xff\xfe",
    b"\x00",
    b"../../x",
    b'{"a":',
)


def mutated(content: bytes, chance: Random, texts: tuple[bytes, ...] = _TEXTS) -> bytes:
    """The content with one to six changes; sometimes nothing but random bytes."""
    if chance.random() < 0.01:
        return chance.randbytes(chance.randrange(200))
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(_CHANGES)(found, chance, texts)
    return bytes(found)


def _flip(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    if found:
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)


def _set(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    if found:
        found[chance.randrange(len(found))] = chance.choice(_INTERESTING)


def _number(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    width = chance.choice((2, 4, 8))
    place = chance.randrange(len(found) + 1)
    number = chance.choice(_NUMBERS) % (1 << 8 * width)
    found[place : place + width] = number.to_bytes(width, chance.choice(("little", "big")))


def _text(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    place = chance.randrange(len(found) + 1)
    found[place : place + chance.choice((0, 0, 1, 4))] = chance.choice(texts)


def _cut(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    start = chance.randrange(len(found) + 1)
    del found[start : start + chance.choice((1, 2, 8, 100, len(found)))]


def _repeat(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    start = chance.randrange(len(found) + 1)
    part = bytes(found[start : start + chance.choice((1, 4, 20, 200))])
    found[start:start] = part * chance.choice((1, 2, 50))


def _swap(found: bytearray, chance: Random, texts: tuple[bytes, ...]) -> None:
    length = chance.choice((1, 4, 30))
    first, second = (chance.randrange(len(found) + 1) for _ in range(2))
    part = bytes(found[first : first + length])
    found[second : second + length] = part


_CHANGES: tuple[Callable[[bytearray, Random, tuple[bytes, ...]], None], ...] = (
    _flip,
    _set,
    _number,
    _text,
    _cut,
    _repeat,
    _swap,
)
