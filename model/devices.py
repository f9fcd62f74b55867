"""Devices by name: a command or a service runs on the device that was asked for, or not at all."""

from __future__ import annotations

import os

import torch

from model.errors import EngineError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def require_device(name: str) -> torch.device:
    """The device. Raises EngineError if this machine or this build of torch does not have it."""
    try:
        return torch.zeros(0, device=name).device
    except (AssertionError, RuntimeError, NotImplementedError) as error:  # torch raises a different one for each reason
        raise EngineError(
            f"device {name!r} is not available ({str(error).splitlines()[0]}); choose cpu, or install a torch build "
            "and a driver for it"
        ) from error


def training_device(name: str | None) -> str:
    """`cpu` or `cuda`, as the Trainer knows them; without a name, a GPU if there is one.

    `cuda:N` hides the other GPUs from this process and those that it starts, because the Trainer would use the first or
    all of them. Call this before anything else asks for a GPU. Raises EngineError if there is no such device.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if not index:
        return require_device(name).type
    visible = os.environ.get(_VISIBLE)
    names = None if visible is None else [each.strip() for each in visible.split(",") if each.strip()]
    if names is not None and int(index) >= len(names):
        raise EngineError(f"device {name!r} is not available ({_VISIBLE} is {visible!r}); choose one of these GPUs")
    os.environ[_VISIBLE] = index if names is None else names[int(index)]
    try:
        require_device(kind)
    except EngineError as error:
        raise EngineError(str(error).replace(repr(kind), repr(name), 1)) from error
    return kind
