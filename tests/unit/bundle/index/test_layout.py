"""What is not exactly what was written is refused, wherever it was damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.bundle.index.index import Index
from model.bundle.index.layout import HEADER_START, parse, pieces
from model.bundle.index.sealed import SealedMemory
from model.errors import IntegrityError
from tests.unit.bundle.index.tables import KEY, tiny_index, written

ARRAYS: dict[str, NDArray[Any]] = {
    "numbers": np.arange(12, dtype=np.int32).reshape(3, 4),
    "none": np.zeros((0, 2), dtype=np.int64),
    "bytes": np.frombuffer(b"an odd size", dtype=np.uint8),
    "flags": np.array([True, False]),
}


@pytest.fixture(scope="module")
def content() -> bytes:
    return bytes(tiny_index().memory.map())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def opened(path: Path) -> Index:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return Index.verified(descriptor, path.name)
    finally:
        os.close(descriptor)


def test_arrays_come_back_as_they_were_and_cannot_be_written() -> None:
    key, found = parse(memoryview(b"".join(pieces(KEY, ARRAYS))), "it")
    assert key == KEY
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tolist() == array.tolist()
        assert not found[name].flags.writeable or not found[name].size


def test_sections_are_aligned() -> None:
    content = np.frombuffer(b"".join(pieces(KEY, ARRAYS)), dtype=np.uint8)
    _, found = parse(content.data, "it")
    start = content.__array_interface__["data"][0]
    assert all((array.__array_interface__["data"][0] - start) % 64 == 0 for array in found.values() if array.size)


def test_the_same_content_gives_the_same_bytes(content: bytes) -> None:
    assert bytes(tiny_index().memory.map()) == content


@given(st.data())
@settings(deadline=None)
def test_a_changed_byte_is_refused(content: bytes, folder: Path, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, HEADER_START + 200) | st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    path = folder / "changed.index"
    path.write_bytes(changed)
    with pytest.raises(IntegrityError, match=r"changed\.index"):
        opened(path)


@given(st.data())
@settings(deadline=None)
def test_a_shorter_or_longer_file_is_refused(content: bytes, folder: Path, data: st.DataObject) -> None:
    path = folder / "resized.index"
    shorter = st.integers(0, len(content) - 1).map(lambda size: content[:size])
    path.write_bytes(data.draw(shorter | st.just(content + b"0")))
    with pytest.raises(IntegrityError, match=r"resized\.index"):
        opened(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"<i8",[30],6464]', b'"<i8",[30],9999]'),
        (b'"<i8",[31],', b'"<O8",[31],'),
        (b'"sections"', b'"sectionz"'),
        (b'{"key"', b'["key"'),
        (b'"trie.token"', b'"trie.tokem"'),
    ],
)
def test_a_header_that_says_something_else_is_refused(content: bytes, old: bytes, new: bytes) -> None:
    assert old in content
    with pytest.raises(IntegrityError):
        Index.open(SealedMemory.of([content.replace(old, new)]))


def test_an_intact_file_is_read(content: bytes, tmp_path: Path) -> None:
    index = opened(written(tiny_index(), tmp_path / "toys.index"))
    assert index.key == KEY
    assert bytes(index.memory.map()) == content
