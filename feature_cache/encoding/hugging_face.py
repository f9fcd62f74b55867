"""Loads CLIP from a local Hugging Face folder, with transformers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPModel, CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from feature_cache.encoding.encoders import check_encoder
from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.preprocessing import Preprocessing
from feature_cache.encoding.towers import Encoder, TorchTower, sha256_of

_Clip = CLIPModel | CLIPVisionModelWithProjection

MODEL_TYPES: dict[str, type[_Clip]] = {"clip": CLIPModel, "clip_vision_model": CLIPVisionModelWithProjection}


class _Projected(nn.Module):
    """The image half of a CLIP: its vision model and the projection, as `get_image_features` runs them."""

    def __init__(self, clip: _Clip) -> None:
        super().__init__()
        self.vision_model = clip.vision_model
        self.visual_projection = clip.visual_projection

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.vision_model(pixel_values=pixels).pooler_output
        projected: torch.Tensor = self.visual_projection(pooled)
        return projected


def load_hugging_face(folder: Path, name: str, device: torch.device) -> Encoder:
    """Load a folder; nothing is downloaded. Raises EncodingError naming the folder and the rule."""
    preprocessing = Preprocessing.from_folder(folder)
    clip = _load(folder)
    vision = clip.vision_model.config
    dim = int(clip.visual_projection.out_features)
    if vision.image_size != preprocessing.image_size:
        raise EncodingError(
            f"{folder}: the model reads pictures of {vision.image_size} pixels, but its preprocessor_config.json"
            f" makes {preprocessing.image_size}; use the files of one model"
        )
    check_encoder(name, dim, vision.image_size, vision.patch_size)
    return Encoder(name, TorchTower(_Projected(clip), dim, device), preprocessing, sha256_of(folder))


def _load(folder: Path) -> _Clip:
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise EncodingError(
            f"{folder}/config.json cannot be read ({error}); give the folder of a CLIP model"
        ) from error
    if model_type not in MODEL_TYPES:
        raise EncodingError(f"{folder} holds a model of type {model_type!r}; it must be {' or '.join(MODEL_TYPES)}")
    try:
        with _quiet():
            loaded = MODEL_TYPES[model_type].from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise EncodingError(f"{folder}: the weights cannot be read ({error})") from error
    clip, found = cast("tuple[_Clip, dict[str, set[str]]]", loaded)
    if found["missing_keys"]:
        raise EncodingError(f"{folder}: the weights lack {min(found['missing_keys'])}; give the complete model")
    return clip


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bars and reports off the terminal."""
    level, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if has_bar:
            transformers_logging.enable_progress_bar()
