"""Writes a file of image embeddings a piece at a time, so that it need not fit into memory.

The form is that of `feature_cache.embedded`. Safetensors is eight bytes of the header's length, a JSON header, and the
tensors one after another; the library itself writes from memory only.
"""

# N items, D width of an embedding

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 8  # of the first tensor, as the library pads its headers


def write_feature_file(
    path: Path, item_ids: Sequence[str], pieces: Iterable[NDArray[np.float16]], dim: int, metadata: Mapping[str, str]
) -> None:
    """Pieces are [n, D], the rows of all items in order; the file appears when it is whole."""
    encoded = [item_id.encode() for item_id in item_ids]
    id_bytes = b"".join(encoded)
    id_offsets = np.zeros(len(encoded) + 1, dtype="<i8")
    np.cumsum([len(item_id) for item_id in encoded], out=id_offsets[1:])
    sizes = {
        "features": ("F16", [len(encoded), dim], 2 * len(encoded) * dim),
        "id_offsets": ("I64", [len(id_offsets)], id_offsets.nbytes),
        "id_bytes": ("U8", [len(id_bytes)], len(id_bytes)),
    }
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_header(sizes, metadata))
            num_rows = 0
            for piece in pieces:
                assert piece.shape[1] == dim
                file.write(np.ascontiguousarray(piece, dtype="<f2").tobytes())
                num_rows += len(piece)
            assert num_rows == len(encoded)
            file.write(id_offsets.tobytes())
            file.write(id_bytes)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _header(sizes: Mapping[str, tuple[str, list[int], int]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name, (dtype, shape, size) in sizes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
