"""The codes that a domain's identifiers are made of: the format of codebook.safetensors, its reader and its writer.

    matrix, offset   float32 [F, D], [D]: from an item's embedding, of length 1, to its position; absent if embeddings
                     say nothing about the codes
    level.0, …       float32 [K, D]: the codes of each level, whose sum is near the position; absent with `matrix`
    seen             int32 [P, L]: the paths, a code of each level, of items that were trained on
    metadata         `sizes` (codes per level, such as 8x8), `num_last` and `first_word`

An identifier is a word for each code, then a last word that tells items of one path apart: `103 112 118` is the code 3
of 8, the code 4 of 8 and the last code 2 if the first word is 100. Levels have words of their own.
"""

# N items, F embedding width, D width of positions, L levels, K codes of a level, P paths, G last codes

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from model.bundle.folders import replacing
from model.bundle.opened_file import OpenedFile
from model.bundle.safetensors_format import LENGTH_BYTES, FormatError, StoredTensor, parse_header
from model.errors import BundleError

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

MOST_WORDS = 1000
"""Numbers below this are one token in the tokenizers made here."""
_REMEDY = "index the dataset again with vip5 data index"
_DTYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4")}


@dataclass(frozen=True, eq=False)
class Projection:
    """An affine map from embeddings, which are brought to length 1, to positions."""

    matrix: Floats  # [F, D]
    offset: Floats  # [D]

    def positions(self, embeddings: NDArray[np.floating]) -> Floats:
        """[N, F] to [N, D]."""
        return of_length_one(embeddings) @ self.matrix + self.offset


@dataclass(frozen=True, eq=False)
class Codebook:
    """Paths and their words. `projection` is None if embeddings of items do not say which path fits them."""

    sizes: tuple[int, ...]
    num_last: int  # G
    first_word: int
    seen: Codes  # [P, L]
    levels: tuple[Floats, ...] = ()  # [K, D] each; none without a projection
    projection: Projection | None = None

    @property
    def num_words(self) -> int:
        """Words of all levels and of last codes."""
        return sum(self.sizes) + self.num_last

    @cached_property
    def first_words(self) -> tuple[int, ...]:
        """The number of each level's first word, and of the first last one, [L + 1]."""
        return tuple((self.first_word + np.cumsum([0, *self.sizes])).tolist())

    @cached_property
    def centres(self) -> Floats:
        """Positions of the seen paths, [P, D]."""
        total = np.zeros((len(self.seen), self.levels[0].shape[1]), dtype=np.float32)
        for level, codes in zip(self.levels, self.seen.T, strict=True):
            total += level[codes]
        return total

    def index_of(self, path: Sequence[int], last: int) -> str:
        """The identifier's text."""
        return " ".join(str(first + code) for first, code in zip(self.first_words, (*path, last), strict=True))

    def codes_of(self, index: str) -> tuple[int, ...] | None:
        """The codes of an identifier, the last one included; None for a text that is not made of them."""
        words = index.split(" ")
        if len(words) != len(self.sizes) + 1 or not all(word.isascii() and word.isdigit() for word in words):
            return None
        codes = tuple(int(word) - first for word, first in zip(words, self.first_words, strict=True))
        is_known = all(0 <= code < size for code, size in zip(codes, (*self.sizes, self.num_last), strict=True))
        return codes if is_known else None

    def nearest_seen(self, position: Floats) -> NDArray[np.int64]:
        """Rows of `seen`, the nearest to a position [D] first; of equally near ones, the first."""
        order: NDArray[np.int64] = np.argsort(((self.centres - position) ** 2).sum(axis=1), kind="stable")
        return order


def of_length_one(rows: NDArray[np.floating]) -> Floats:
    """Rows [N, F] of length 1; zero rows stay zero."""
    found = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    scaled: Floats = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
    return scaled


def check_codes(codebook: Codebook, indices: Sequence[str], where: str) -> None:
    """Raise BundleError, naming the first one, if identifiers are not made of the codebook's words."""
    for index in indices:
        if codebook.codes_of(index) is None:
            raise BundleError(
                f"{where}: the index {index!r} is not made of the codebook's words, {len(codebook.sizes) + 1} numbers "
                f"in the ranges from {', '.join(map(str, codebook.first_words))}; {_REMEDY}, or leave its codebook out"
            )


def check_projection(codebook: Codebook, feature_dim: int, where: str) -> None:
    """Raise BundleError if the projection is not from embeddings of this width; 0 for a domain without pictures."""
    width = None if codebook.projection is None else len(codebook.projection.matrix)
    if width is not None and feature_dim and width != feature_dim:
        raise BundleError(
            f"{where} reads embeddings of width {width}, but the domain's are {feature_dim} wide; {_REMEDY}, with the "
            "embeddings of the model's encoder"
        )


def write_codebook(path: Path, codebook: Codebook) -> None:
    """Equal codebooks give equal bytes; the file appears when it is complete."""
    tensors: dict[str, NDArray[Any]] = {"seen": np.ascontiguousarray(codebook.seen, dtype=np.int32)}
    if codebook.projection is not None:
        projection = codebook.projection
        tensors |= {"matrix": np.ascontiguousarray(projection.matrix), "offset": projection.offset}
        tensors |= {f"level.{number}": np.ascontiguousarray(level) for number, level in enumerate(codebook.levels)}
    metadata = {
        "first_word": str(codebook.first_word),
        "num_last": str(codebook.num_last),
        "sizes": "x".join(map(str, codebook.sizes)),
    }
    with replacing(path) as file:
        file.write(_with_metadata_in_order(save(tensors, metadata)))


def _with_metadata_in_order(content: bytes) -> bytes:
    """The same file; the library writes the keys of the metadata in another order each time."""
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(end - LENGTH_BYTES)
    return content[:LENGTH_BYTES] + text + content[end:]


def read_codebook(path: Path) -> Codebook:
    """Raises BundleError naming the broken rule."""
    try:
        content = OpenedFile(path).content()
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error}; {_REMEDY}") from error
    return parse_codebook(content, path.name)


def parse_codebook(content: memoryview, where: str) -> Codebook:
    """From the content of a file, which errors call `where`. Raises BundleError naming the broken rule."""
    try:
        header = parse_header(content, len(content))
        sizes = tuple(map(int, header.metadata["sizes"].split("x")))
        num_last, first_word = int(header.metadata["num_last"]), int(header.metadata["first_word"])
        tensors = {name: _array(content, name, stored) for name, stored in header.tensors.items()}
        _check(sizes, num_last, first_word, tensors)
    except KeyError as error:
        raise BundleError(f"{where} is no codebook: its metadata lacks {error}; {_REMEDY}") from error
    except ValueError as error:
        raise BundleError(f"{where} is no codebook: {error}; {_REMEDY}") from error
    if "matrix" not in tensors:
        return Codebook(sizes, num_last, first_word, tensors["seen"].astype(np.int32))
    return Codebook(
        sizes=sizes,
        num_last=num_last,
        first_word=first_word,
        seen=tensors["seen"].astype(np.int32),
        levels=tuple(tensors[f"level.{number}"] for number in range(len(sizes))),
        projection=Projection(tensors["matrix"], tensors["offset"]),
    )


def _array(content: memoryview, name: str, stored: StoredTensor) -> NDArray[Any]:
    if stored.dtype not in _DTYPES:
        raise FormatError(f"the tensor {name} is of type {stored.dtype}; it must be one of {', '.join(_DTYPES)}")
    part = bytes(content[stored.start : stored.end])  # aligned, and independent of the file
    return np.frombuffer(part, dtype=_DTYPES[stored.dtype]).reshape(stored.shape)


def _check(sizes: tuple[int, ...], num_last: int, first_word: int, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError naming the broken rule."""
    if min(*sizes, num_last) < 1 or first_word < 0:
        raise ValueError(f"sizes {sizes} and num_last {num_last} must be 1 or more, first_word {first_word} 0 or more")
    shapes = {"seen": (len(tensors.get("seen", ())), len(sizes))}
    if len(tensors) > 1:
        width, dim = tensors.get("matrix", np.zeros((0, 0))).shape[:2] or (0, 0)
        shapes |= {"matrix": (width, dim), "offset": (dim,)}  # type: ignore[dict-item]  # shapes of any length
        shapes |= {f"level.{number}": (size, dim) for number, size in enumerate(sizes)}
    if tensors.keys() != shapes.keys():
        raise ValueError(f"it has the tensors {', '.join(sorted(tensors))}, not {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        kind = np.dtype(np.int32) if name == "seen" else np.dtype(np.float32)
        if tensors[name].shape != shape or tensors[name].dtype != kind:
            raise ValueError(f"{name} is {tensors[name].dtype} {tensors[name].shape}, not {kind} {shape}")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} has values that are NaN or infinite")
    seen = tensors["seen"]
    if not len(seen) or (seen < 0).any() or (seen >= np.array(sizes)).any():
        raise ValueError(f"seen must have at least one path of codes 0 to {', '.join(str(size - 1) for size in sizes)}")
