"""Safetensors files: reading, writing, and checking their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.bundle.shapes import Shape
from model.errors import BundleError

_NUM_NAMED = 5


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises BundleError for a truncated file or another format."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path.name} is not a readable safetensors file: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Equal tensors give equal bytes; tensors that share memory are written separately."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)


def check_tensors(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Shape], where: str) -> None:
    """Raise BundleError unless `tensors` have exactly the expected names and shapes, and are floating-point."""
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


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise BundleError for weights that are NaN or infinite, as after a diverged training run."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{where}: {name} has values that are NaN or infinite; use a checkpoint without them")


def named(names: Iterable[str]) -> str:
    """Names for a message: all if they are few, else the first ones."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:_NUM_NAMED])
    return shown if len(ordered) <= _NUM_NAMED else f"{shown} and {len(ordered) - _NUM_NAMED} more"
