"""The layout of the memory that holds a worker's counters and histograms; knows nothing of processes.

The memory is an array of 8-byte words in the machine's byte order, so that one store writes a word whole. Word 0 is
`MAGIC`, word 1 the end of the entries that readers may see. An entry is complete before word 1 is moved behind it:

| words of an entry | content                                                                                       |
|-------------------|-----------------------------------------------------------------------------------------------|
| 0                 | number of words of the entry; above bit 32: number of bytes of the key, 0 if it is padding    |
| 1                 | CRC-32 of the key                                                                             |
| 2                 | value, a float64                                                                              |
| 3                 | number of exemplars written so far; the newest is in record (number % 2)                      |
| 4 and on          | key, a JSON document; then, in entries that take exemplars, two records                       |

The writer of an exemplar fills the record that readers do not read, then counts it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from mmap import mmap
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from prometheus_client.samples import Exemplar

WORD_BYTES = 8
MAGIC = 0x7669_7035_6D65_7401
END = 1
FIRST_ENTRY = 2
HEAD_WORDS = 4
RECORD_WORDS = 16
"""An exemplar: its number of bytes and, above bit 32, their CRC-32; then value, time and labels."""
MAX_EXEMPLAR_BYTES = (RECORD_WORDS - 1) * WORD_BYTES
MOMENT = Struct("=dd")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum")}
"""Of the samples that are kept, by type; others, such as gauges, are not summed."""
_encode = json.JSONEncoder(separators=(",", ":")).encode
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Key(NamedTuple):
    """Identifies a value. A bucket's count is that of the bucket alone, not cumulative."""

    type: str
    family: str
    sample: str
    labels: tuple[tuple[str, str], ...]

    def encode(self) -> bytes:
        return _encode(self).encode()


@dataclass(frozen=True)
class Views:
    """One mapping of the memory, seen as bytes, as words and as floats."""

    memory: mmap
    bytes: memoryview
    words: memoryview
    doubles: memoryview[float]

    @classmethod
    def of(cls, memory: mmap) -> Views:
        content = memoryview(memory)
        return cls(memory, content, content.cast("Q"), content.cast("d"))

    def close(self) -> None:
        for view in (self.words, self.doubles, self.bytes):
            view.release()
        self.memory.close()


@dataclass(frozen=True)
class Entry:
    """A value's place in a mapping; `at` and `records_at` count words, and `records_at` is 0 without exemplars."""

    key: Key
    at: int
    records_at: int


def num_words(num_bytes: int) -> int:
    return -(-num_bytes // WORD_BYTES)


def entry_words(key: bytes, *, takes_exemplars: bool) -> int:
    return HEAD_WORDS + num_words(len(key)) + (2 * RECORD_WORDS if takes_exemplars else 0)


def write_entry(views: Views, at: int, key: bytes, size: int) -> None:
    """Write an entry of value 0 into unused memory, which is all zeros."""
    start = (at + HEAD_WORDS) * WORD_BYTES
    views.bytes[start : start + len(key)] = key
    views.words[at + 1] = crc32(key)
    views.words[at] = size | len(key) << 32


def read_entry(views: Views, at: int, end: int) -> tuple[int, Entry | None]:
    """The entry at word `at`, and where the next one begins; no entry if it is padding.

    Raises ValueError if the words up to `end` hold no whole entry.
    """
    size, num_key_bytes = views.words[at] & 0xFFFF_FFFF, views.words[at] >> 32
    if not 1 <= size <= end - at:
        raise ValueError(f"an entry of {size} words at word {at} does not end before word {end}")
    if not num_key_bytes:
        return at + size, None
    records_at = at + HEAD_WORDS + num_words(num_key_bytes)
    if records_at > at + size:
        raise ValueError(f"a key of {num_key_bytes} bytes does not fit into an entry of {size} words")
    start = (at + HEAD_WORDS) * WORD_BYTES
    content = views.bytes[start : start + num_key_bytes].tobytes()
    if crc32(content) != views.words[at + 1]:
        raise ValueError(f"the key at word {at} does not match its checksum")
    takes_exemplars = at + size >= records_at + 2 * RECORD_WORDS
    return at + size, Entry(decode_key(content), at, records_at if takes_exemplars else 0)


def decode_key(content: bytes) -> Key:
    """Raises ValueError if `content` is not the key of a counter's or a histogram's value."""
    try:
        kind, family, sample, pairs = json.loads(content)
        labels = tuple((name, text) for name, text in pairs)
    except TypeError as error:
        raise ValueError("not a key") from error
    if not all(isinstance(text, str) for text in (kind, family, sample, *(text for pair in labels for text in pair))):
        raise ValueError("a key consists of strings")
    if not NAME.fullmatch(family) or sample.removeprefix(family) not in SUFFIXES.get(kind, ()):
        raise ValueError(f"no counter or histogram: {kind} {family} {sample}")
    if sample == f"{family}_bucket" and math.isnan(float(dict(labels).get("le", "nan"))):
        raise ValueError(f"a bucket without a bound: {labels}")
    return Key(kind, family, sample, labels)


def write_exemplar(views: Views, at: int, records_at: int, exemplar: Exemplar) -> None:
    """Make `exemplar` the newest of the entry at word `at`. One whose labels are too long is left out."""
    content = MOMENT.pack(exemplar.value, float(exemplar.timestamp or 0.0)) + _encode(exemplar.labels).encode()
    if len(content) > MAX_EXEMPLAR_BYTES:
        return
    number = views.words[at + 3] + 1
    record = records_at + number % 2 * RECORD_WORDS
    start = (record + 1) * WORD_BYTES
    views.bytes[start : start + len(content)] = content
    views.words[record] = len(content) | crc32(content) << 32
    views.words[at + 3] = number


def read_exemplar(views: Views, at: int, records_at: int) -> Exemplar | None:
    """The newest exemplar; None if there is none, or if the writer replaces it again and again meanwhile."""
    for _ in range(3):
        number = views.words[at + 3]
        if not number:
            return None
        record = records_at + number % 2 * RECORD_WORDS
        size, checksum = views.words[record] & 0xFFFF_FFFF, views.words[record] >> 32
        if not MOMENT.size <= size <= MAX_EXEMPLAR_BYTES:
            return None
        start = (record + 1) * WORD_BYTES
        content = views.bytes[start : start + size].tobytes()
        if crc32(content) == checksum and views.words[at + 3] == number:
            value, timestamp = MOMENT.unpack_from(content)
            return Exemplar(json.loads(content[MOMENT.size :]), value, timestamp)
    return None
