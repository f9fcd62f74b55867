"""Loads CLIP's ResNets (RN50, RN101), and other models that open_clip reads from a local folder or file."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import cast

import torch
from safetensors import SafetensorError
from torch import nn

from feature_cache.encoding.encoders import PAPER_ENCODERS, check_encoder
from feature_cache.encoding.errors import EncodingError, MissingExtraError
from feature_cache.encoding.preprocessing import Preprocessing
from feature_cache.encoding.towers import Encoder, TorchTower, sha256_of

CONFIG = "open_clip_config.json"


class _Visual(nn.Module):
    """Attributes of open_clip's image towers."""

    output_dim: int
    image_size: int | tuple[int, int]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    preprocess_cfg: dict[str, object]


def load_open_clip(source: Path, name: str, device: torch.device) -> Encoder:
    """Load a folder with open_clip_config.json, or a file with the weights of one of the paper's encoders.

    A file may be safetensors, a state dict of torch, or OpenAI's own archive. Raises EncodingError.
    """
    visual = _load(source, name)
    preprocessing = _preprocessing(visual)
    check_encoder(name, visual.output_dim, preprocessing.image_size)
    return Encoder(name, TorchTower(visual, visual.output_dim, device), preprocessing, sha256_of(source))


def _load(source: Path, name: str) -> _Visual:
    open_clip = _open_clip()
    if source.is_file() and name not in PAPER_ENCODERS:
        raise EncodingError(
            f"{source} is a file, so the encoder's name must tell the architecture, and {name!r} is not one of"
            f" {', '.join(PAPER_ENCODERS)}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the format of OpenAI's archives is deprecated
            if source.is_dir():
                clip = open_clip.create_model(f"local-dir:{source}", require_pretrained=True)
            elif source.suffix == ".pt":  # OpenAI's: an archive of TorchScript, or its state dict
                clip = open_clip.load_openai_model(str(source), precision="fp32", device="cpu")
            else:
                clip = open_clip.create_model(PAPER_ENCODERS[name].open_clip_name, pretrained=str(source))
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, UnpicklingError) as error:
        raise EncodingError(f"{source}: open_clip cannot read these weights ({error})") from error
    return cast("_Visual", clip.visual)


def _open_clip() -> ModuleType:
    """Import open_clip, whose dependency torchvision fails in its own ways if it does not fit the installed torch."""
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise MissingExtraError("open_clip", "open-clip", error) from error
    except RuntimeError as error:
        raise EncodingError(
            f"open_clip cannot be imported ({error}); install the torchvision for torch {torch.__version__}, or export"
            " the encoder to ONNX on another machine and give the file with --onnx"
        ) from error


def _preprocessing(visual: _Visual) -> Preprocessing:
    settings = getattr(visual, "preprocess_cfg", {})  # OpenAI's archives have none
    for option, supported in (("interpolation", "bicubic"), ("resize_mode", "shortest")):
        if settings.get(option, supported) != supported:
            raise EncodingError(f"the model needs {option} {settings[option]!r}; only {supported!r} is supported")
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise EncodingError(f"the model reads pictures of {width} × {height} pixels; only squares are supported")
    return Preprocessing.of_size(height, visual.image_mean, visual.image_std)
