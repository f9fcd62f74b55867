"""Opens an encoder from any supported form of weights, and imports only the library that the form needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.residual import CONFIG, load_open_clip
from feature_cache.encoding.towers import Encoder, torch_device


class EncoderSource(Protocol):
    """Where an encoder is loaded from; can be sent to other processes and machines."""

    def load(self) -> Encoder:
        """Raises EncodingError."""
        ...


@dataclass(frozen=True)
class TorchSource:
    """A local Hugging Face folder, or a folder or file that open_clip reads."""

    path: Path
    name: str
    device: str = "cpu"
    num_threads: int | None = None

    def load(self) -> Encoder:
        device = torch_device(self.device)
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        if self.path.is_dir() and _is_hugging_face(self.path):
            from feature_cache.encoding.hugging_face import load_hugging_face

            return load_hugging_face(self.path, self.name, device)
        if self.path.is_dir() and not (self.path / CONFIG).is_file():
            raise EncodingError(
                f"{self.path} holds no CLIP model; a Hugging Face folder has a config.json of type clip, a folder"
                f" of open_clip has {CONFIG}"
            )
        return load_open_clip(self.path, self.name, device)


@dataclass(frozen=True)
class OnnxSource:
    """An ONNX file, with what its metadata may lack."""

    path: Path
    name: str | None = None
    image_size: int | None = None
    device: str = "cpu"
    num_threads: int | None = None

    def load(self) -> Encoder:
        from feature_cache.encoding.onnx_tower import load_onnx

        return load_onnx(self)


def _is_hugging_face(folder: Path) -> bool:
    """Whether transformers reads it: folders of open_clip may have a config.json of another library."""
    if not (folder / CONFIG).is_file():
        return (folder / "config.json").is_file()
    try:
        return "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
