"""Safetensors files: reading, writing, and comparing what is in them with what must be."""

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
    """Raise BundleError for a file that is truncated or of another format."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path.name} is not a safetensors file that can be read: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """The same tensors give the same bytes; those that share memory are written once each."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)


def check_tensors(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Shape], where: str) -> None:
    """Raise BundleError unless `tensors` are exactly the expected ones: names, shapes, real numbers."""
    missing = expected.keys() - tensors.keys()
    unknown = tensors.keys() - expected.keys()
    if missing or unknown:
        faults = [f"{text} {named(keys)}" for text, keys in (("misses", missing), ("has unknown", unknown)) if keys]
        raise BundleError(f"{where} {' and '.join(faults)}; check that its configuration describes the same model")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise BundleError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, by the configuration it must be {shape}; "
                "check that both describe the same model"
            )
        if not tensor.is_floating_point():
            raise BundleError(f"{where}: {name} is of type {tensor.dtype}; weights must be floating-point numbers")


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise BundleError for weights that are NaN or infinite, as a training run that diverged leaves them."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{where}: {name} has values that are NaN or infinite; take a checkpoint that has none")


def named(names: Iterable[str]) -> str:
    """Some names for a message: all of a few, the first of many."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:_NUM_NAMED])
    return shown if len(ordered) <= _NUM_NAMED else f"{shown} and {len(ordered) - _NUM_NAMED} more"
