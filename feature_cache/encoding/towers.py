"""CLIP image towers: from preprocessed pixels to embeddings.

Embeddings are projected and not normalised, like those of `get_image_features` and of OpenAI's `encode_image`, because
VIP5 was trained on these.
"""

# B pictures, S edge of the encoder's input, D width of an embedding

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.preprocessing import Preprocessing


class ImageTower(Protocol):
    """Computes the embeddings of a batch, with torch or ONNX Runtime."""

    @property
    def dim(self) -> int: ...

    def embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, 3, S, S] to [B, D]."""
        ...


@dataclass(frozen=True, eq=False)
class Encoder:
    """A tower and the preprocessing that it was trained with."""

    name: str
    tower: ImageTower
    preprocessing: Preprocessing
    weights_sha256: str


class TorchTower:
    """A torch module from pixels to embeddings, on one device, in float32."""

    def __init__(self, module: nn.Module, dim: int, device: torch.device) -> None:
        self._module = module.eval().requires_grad_(requires_grad=False).to(device=device, dtype=torch.float32)
        self._device = device
        self._dim = dim

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def module(self) -> nn.Module:
        return self._module

    def embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            embeddings: torch.Tensor = self._module(torch.from_numpy(pixels).to(self._device))
        assert embeddings.shape == (len(pixels), self._dim)
        return embeddings.cpu().numpy()


def torch_device(name: str) -> torch.device:
    """Raises EncodingError for a name that torch does not know or a GPU that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EncodingError(f"device {name!r} is unknown; use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EncodingError(f"there is no device {name}; torch sees {torch.cuda.device_count()} GPUs; use --device cpu")
    if device.type not in {"cpu", "cuda"}:
        raise EncodingError(f"device {name!r} is not supported; use cpu, cuda or cuda:N")
    return device


def sha256_of(path: Path) -> str:
    """Digest of a file, or of all files of a folder with their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for part in sorted(child for child in path.iterdir() if child.is_file()):
        whole.update(f"{part.name}\0{sha256_of(part)}\n".encode())
    return whole.hexdigest()
