"""The header of a safetensors file, read without the library: it maps the file into memory, or copies it twice.

Follows the format's rules: a length of 8 bytes, JSON, then the tensors without gaps or overlaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.bundle.opened_file import Content

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""
_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}


class FormatError(ValueError):
    """A file that breaks the format."""


@dataclass(frozen=True)
class StoredTensor:
    """Type and shape of a tensor, and where its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """Tensors in the order of their bytes, and what else the header says."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def header_bytes(beginning: Content, file_size: int) -> int:
    """Where the tensors begin, from the file's first 8 bytes. Raises FormatError."""
    if file_size < LENGTH_BYTES:
        raise FormatError(f"it has {file_size} bytes, too few for a header")
    length = int.from_bytes(beginning[:LENGTH_BYTES], "little")
    if length > MOST_HEADER_BYTES or LENGTH_BYTES + length > file_size:
        raise FormatError(f"its header would have {length} bytes, the file has {file_size}")
    return LENGTH_BYTES + length


def parse_header(beginning: Content, file_size: int) -> Header:
    """`beginning` holds the header or more of the file. Raises FormatError, naming the broken rule."""
    begin = header_bytes(beginning, file_size)
    try:
        content = json.loads(bytes(beginning[LENGTH_BYTES:begin]))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError("its header is no JSON object")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("its metadata is no JSON object of texts")
    tensors = {name: _tensor(name, stored, begin) for name, stored in content.items()}
    ordered = dict(sorted(tensors.items(), key=lambda each: (each[1].start, each[1].end)))
    end = begin
    for name, stored in ordered.items():
        if stored.start != end:
            raise FormatError(f"the tensor {name} begins at byte {stored.start}, not at {end}")
        end = stored.end
    if end != file_size:
        raise FormatError(f"its tensors end at byte {end}, the file at {file_size}")
    return Header(ordered, metadata)


def _tensor(name: str, stored: Any, begin: int) -> StoredTensor:  # noqa: ANN401 - any JSON
    try:
        dtype, shape, (start, end) = stored["dtype"], stored["shape"], stored["data_offsets"]
        bits = _BITS[dtype] * math.prod(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the tensor {name} is described as {str(stored)[:80]}") from error
    if not all(type(size) is int and 0 <= size < 1 << 63 for size in (*shape, start, end)):
        raise FormatError(f"the tensor {name} has a size or position that is no natural number: {str(stored)[:80]}")
    if end < start or 8 * (end - start) != bits:
        raise FormatError(f"the tensor {name} is {dtype} {shape}, but has {end - start} bytes")
    return StoredTensor(dtype, tuple(shape), begin + start, begin + end)
