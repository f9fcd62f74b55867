"""Safetensors files: reading, writing, and checking their tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from model.bundle.folders import replacing
from model.bundle.opened_file import OpenedFile
from model.bundle.safetensors_format import FormatError, StoredTensor, parse_header
from model.bundle.shapes import Shape
from model.errors import BundleError

_NUM_NAMED = 5
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
}
"""By the format's names."""
_WITHOUT_ORDER = {torch.float8_e5m2, torch.float8_e4m3fn}
"""Types whose values torch does not compare."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, in memory. Raises BundleError for a truncated file or another format."""
    try:
        content = OpenedFile(path).content()
    except OSError as error:
        raise BundleError(f"{path.name} is not a readable safetensors file: {error}") from error
    return parse_tensors(content, path.name)


def parse_tensors(content: memoryview, where: str) -> dict[str, torch.Tensor]:
    """Tensors that share the memory of a file's content. Raises BundleError, which calls it `where`."""
    try:
        stored = parse_header(content, len(content)).tensors
        return {name: _tensor(content, name, each) for name, each in stored.items()}
    except FormatError as error:
        raise BundleError(f"{where} is not a readable safetensors file: {error}") from error


def _tensor(content: memoryview, name: str, stored: StoredTensor) -> torch.Tensor:
    dtype = _DTYPES.get(stored.dtype)
    if dtype is None:
        raise FormatError(f"the tensor {name} is of type {stored.dtype}; it must be one of {', '.join(_DTYPES)}")
    if stored.start == stored.end:
        return torch.empty(stored.shape, dtype=dtype)
    part = content[stored.start : stored.end]
    aligned = part if stored.start % dtype.itemsize == 0 else bytearray(part)
    return torch.frombuffer(aligned, dtype=dtype).reshape(stored.shape)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Equal tensors give equal bytes; tensors that share memory are written separately. Raises OSError."""
    with replacing(path) as file:
        try:
            save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, file.name)
        except SafetensorError as error:  # a full disk, for instance, which the library says in its own way
            raise OSError(f"{path} cannot be written: {error}") from error


def check_tensors(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Shape], where: str) -> None:
    """Raise BundleError unless `tensors` have the expected names and shapes and finite floating-point values."""
    missing = expected.keys() - tensors.keys()
    unknown = tensors.keys() - expected.keys()
    if missing or unknown:
        faults = [f"{text} {named(keys)}" for text, keys in (("lacks", missing), ("has unknown", unknown)) if keys]
        raise BundleError(f"{where} {' and '.join(faults)}; check that its configuration describes the same model")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise BundleError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, but by the configuration it is {shape}; check that "
                "both describe the same model"
            )
        if not tensor.is_floating_point():
            raise BundleError(f"{where}: {name} has type {tensor.dtype}; weights must be floating-point")
    check_finite({name: tensors[name] for name in expected}, where)


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise BundleError for weights that are NaN or infinite, as after a diverged training run."""
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise BundleError(f"{where}: {name} has values that are NaN or infinite; use a checkpoint without them")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Reads the values once and takes no memory; both ends are NaN if any value is."""
    if not tensor.numel():
        return True
    values = tensor.to(torch.float32) if tensor.dtype in _WITHOUT_ORDER else tensor
    return all(math.isfinite(float(end)) for end in torch.aminmax(values))


def named(names: Iterable[str]) -> str:
    """Names for a message: all if they are few, else the first ones."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:_NUM_NAMED])
    return shown if len(ordered) <= _NUM_NAMED else f"{shown} and {len(ordered) - _NUM_NAMED} more"
