"""The bytes of an index: named arrays after a header, and a checksum over everything.

    bytes 0-23     magic, version (uint32), size of the header (uint32), size of the index (uint64)
    bytes 24-55    SHA-256 of all other bytes
    bytes 56-      header: JSON with the key and, for each section, its name, dtype, shape and start
    then           sections, each aligned to 64 bytes, zeros between

Numbers are little-endian. The key is a digest of what the index was made from.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import IntegrityError

VERSION = 1
MOST_BYTES = 64 << 30
"""Size limit of an index; one of a hundred million items is smaller."""

_MAGIC = b"VIP5IDX\n"
_PREFIX = struct.Struct("<8sIIQ")
_DIGEST_BYTES = 32
HEADER_START = _PREFIX.size + _DIGEST_BYTES
_ALIGNMENT = 64
_MOST_HEADER_BYTES = 1 << 20
_PIECE_BYTES = 4 << 20
_DTYPES = ("|u1", "|b1", "<i4", "<i8")

Sections = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Prefix:
    """The sizes and the digest with which an index begins."""

    header_bytes: int
    size: int
    digest: bytes
    hashed: bytes
    """The part of the prefix that the digest covers."""

    @classmethod
    def parse(cls, content: bytes | memoryview, size: int, where: str) -> Prefix:
        """From the first bytes of an index that has `size` bytes. Raises IntegrityError, which names `where`."""
        if len(content) < HEADER_START:
            raise IntegrityError(f"{where} has {size} bytes, fewer than an index has at least")
        magic, version, header_bytes, declared = _PREFIX.unpack_from(content)
        if magic != _MAGIC or version != VERSION:
            raise IntegrityError(f"{where} is no index of version {VERSION}")
        if declared != size:
            raise IntegrityError(f"{where} has {size} bytes; its header says {declared}")
        if header_bytes > min(_MOST_HEADER_BYTES, size - HEADER_START):
            raise IntegrityError(f"{where} has a header of {header_bytes} bytes, which is too long")
        hashed, digest = bytes(content[: _PREFIX.size]), bytes(content[_PREFIX.size : HEADER_START])
        return cls(header_bytes, size, digest, hashed)


def pieces(key: str, sections: Sections) -> Iterator[bytes | memoryview]:
    """The bytes of an index, in order."""
    header, size = _header(key, sections)
    prefix = _PREFIX.pack(_MAGIC, VERSION, len(header), size)
    digest = hashlib.sha256(prefix)
    for piece in _body(header, sections):
        digest.update(piece)
    yield prefix
    yield digest.digest()
    yield from _body(header, sections)


def parse(content: memoryview, where: str) -> tuple[str, dict[str, NDArray[Any]]]:
    """The key and the sections, as read-only views of the content, whose digest has been verified before.

    Raises IntegrityError, which names `where`.
    """
    prefix = Prefix.parse(content, len(content), where)
    try:
        header = json.loads(bytes(content[HEADER_START : HEADER_START + prefix.header_bytes]))
        sections = {
            name: _view(content, dtype, shape, start) for name, (dtype, shape, start) in header["sections"].items()
        }
        return str(header["key"]), sections
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{where} has a header that cannot be read: {error}") from error


def _header(key: str, sections: Sections) -> tuple[bytes, int]:
    """The header, and the size of the whole index. Starts are relative to the end of the header."""
    places: dict[str, tuple[str, list[int], int]] = {}
    start = 0
    for name, array in sections.items():
        assert array.dtype.str in _DTYPES, (name, array.dtype)
        places[name] = (array.dtype.str, list(array.shape), start)
        start += _aligned(array.nbytes)
    text = json.dumps({"key": key, "sections": places}, separators=(",", ":")).encode()
    text += b" " * (_aligned(HEADER_START + len(text)) - HEADER_START - len(text))
    assert len(text) <= _MOST_HEADER_BYTES
    return text, HEADER_START + len(text) + start


def _body(header: bytes, sections: Sections) -> Iterator[bytes | memoryview]:
    yield header
    for array in sections.values():
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES]
        yield b"\0" * (_aligned(len(content)) - len(content))


def _view(content: memoryview, dtype: str, shape: list[int], start: int) -> NDArray[Any]:
    if dtype not in _DTYPES or not all(type(number) is int and number >= 0 for number in (*shape, start)):
        raise ValueError(f"{dtype} {shape} at {start} is no section")
    kind, count = np.dtype(dtype), math.prod(shape)
    begin = HEADER_START + Prefix.parse(content, len(content), "index").header_bytes + start
    if begin + count * kind.itemsize > len(content):
        raise ValueError(f"a section of {count} {dtype} at {start} ends beyond the index")
    if not count:
        return np.zeros(shape, kind)
    return np.frombuffer(content, kind, count, begin).reshape(shape)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
