"""Our reader of safetensors headers and the library agree, and broken headers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save

from model.bundle.opened_file import OpenedFile
from model.bundle.safetensors_format import FormatError, parse_header
from model.bundle.tensors import parse_tensors, read_tensors
from tests.unit.bundle.refusals import refused

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(0, 4), max_size=3)


def file_of(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


@settings(max_examples=50)
@given(kinds=st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=5))
def test_tensors_are_those_that_the_library_reads(kinds: list[tuple[torch.dtype, list[int]]]) -> None:
    tensors = {f"t{place}": torch.randint(0, 2, shape).to(dtype) for place, (dtype, shape) in enumerate(kinds)}
    content = save(tensors)
    found = parse_tensors(memoryview(bytearray(content)), "it")
    theirs = load(content)
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], theirs[name]) and found[name].dtype == theirs[name].dtype for name in theirs)


def test_a_tensor_that_is_not_aligned_is_read(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.0])
    content = b"a" + values.numpy().tobytes()
    header = {
        "one": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "two": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    (tmp_path / "it").write_bytes(file_of(header, content))
    assert torch.equal(read_tensors(tmp_path / "it")["two"], values)


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        (1 << 62).to_bytes(8, "little") + b"{}",
        file_of(b"{"),
        file_of(b"[" * 100_000),
        file_of([]),
        file_of({"a": 3}),
        file_of({"a": TENSOR | {"dtype": "F33"}}, bytes(8)),
        file_of({"a": TENSOR | {"dtype": ["F32"]}}, bytes(8)),
        file_of({"a": TENSOR | {"shape": [3]}}, bytes(8)),
        file_of({"a": TENSOR | {"shape": [-1, -2]}}, bytes(8)),
        file_of({"a": TENSOR | {"shape": [2.0]}}, bytes(8)),
        file_of({"a": TENSOR | {"shape": 2}}, bytes(8)),
        file_of({"a": TENSOR | {"data_offsets": [0]}}, bytes(8)),
        file_of({"a": TENSOR | {"data_offsets": [8, 0]}}, bytes(8)),
        file_of({"a": TENSOR}, bytes(7)),
        file_of({"a": TENSOR}, bytes(9)),
        file_of({"a": TENSOR | {"data_offsets": [4, 12]}}, bytes(12)),
        file_of({"a": TENSOR, "b": TENSOR}, bytes(8)),
        file_of({"__metadata__": {"a": 3}}),
        file_of({"__metadata__": 3}),
    ],
)
def test_what_breaks_the_format_is_refused_as_the_library_does(content: bytes) -> None:
    with pytest.raises(FormatError):
        parse_header(content, len(content))
    with pytest.raises(SafetensorError):
        load(content)


def test_a_type_that_no_model_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(file_of({"a": TENSOR | {"dtype": "C64", "shape": [1]}}, bytes(8)))
    with refused("invalid_bundle", "the tensor a is of type C64; it must be one of BOOL, U8"):
        read_tensors(tmp_path / "it")


def test_what_was_read_is_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(save({"a": torch.ones(1000)}))
    tensors = read_tensors(path)
    path.write_bytes(b"")
    assert torch.equal(tensors["a"], torch.ones(1000))


def test_a_file_that_becomes_shorter_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(bytes(100))
    file = OpenedFile(path)
    path.write_bytes(bytes(99))
    for read in (file.content, file.sha256):
        with pytest.raises(OSError, match="became shorter"):
            read()
