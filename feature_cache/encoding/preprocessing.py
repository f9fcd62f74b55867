"""CLIP's preprocessing: from a picture to the pixels that an image tower reads.

Uses transformers' implementation on Pillow and numpy, like the original CLIP, so that results do not depend on whether
torchvision is installed.
"""

# S edge of the encoder's input

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_cache.encoding.errors import EncodingError, MissingExtraError

try:
    from transformers import CLIPImageProcessorPil
except ImportError as _error:  # pragma: no cover - the extra is installed where tests run
    raise MissingExtraError("transformers", "encode", _error) from _error


class Preprocessing:
    """Scales and crops to a square and normalises, as CLIP does. Can be sent to other processes."""

    def __init__(self, processor: CLIPImageProcessorPil) -> None:
        self._processor = processor
        self.image_size = _image_size(processor)

    @classmethod
    def from_folder(cls, folder: Path) -> Preprocessing:
        """Read the preprocessor_config.json of a Hugging Face folder. Raises EncodingError."""
        path = folder / "preprocessor_config.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EncodingError(
                f"{path} cannot be read ({error}); the folder must hold the settings of CLIP's preprocessing, too"
            ) from error
        return cls.from_settings(settings, str(path))

    @classmethod
    def from_settings(cls, settings: object, where: str) -> Preprocessing:
        """From the parsed content of a preprocessor_config.json, which errors call `where`."""
        if not isinstance(settings, dict):
            raise EncodingError(f"{where} must be a JSON object with the settings of CLIP's preprocessing")
        kind = settings.get("image_processor_type", settings.get("feature_extractor_type", "CLIPImageProcessor"))
        if not str(kind).startswith(("CLIPImageProcessor", "CLIPFeatureExtractor")):
            raise EncodingError(f"{where} is for {kind}; only CLIP's preprocessing is supported, CLIPImageProcessor")
        try:
            return cls(CLIPImageProcessorPil.from_dict(settings))
        except (TypeError, ValueError, KeyError) as error:
            raise EncodingError(f"{where} does not describe CLIP's preprocessing ({error})") from error

    @classmethod
    def of_size(
        cls, image_size: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> Preprocessing:
        """For pictures of this edge; the mean and standard deviation of colours default to OpenAI's."""
        settings: dict[str, object] = {
            "size": {"shortest_edge": image_size},
            "crop_size": {"height": image_size, "width": image_size},
        }
        colours = {"image_mean": mean, "image_std": std}
        settings |= {name: list(values) for name, values in colours.items() if values is not None}
        return cls.from_settings(settings, "the model's preprocessing")

    @property
    def settings(self) -> str:
        """JSON that `from_settings` reads."""
        return str(self._processor.to_json_string())

    def pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """[3, S, S]."""
        pixels: NDArray[np.float32] = self._processor(images=image, return_tensors="np")["pixel_values"][0]
        assert pixels.shape == (3, self.image_size, self.image_size)
        return pixels.astype(np.float32, copy=False)


def _image_size(processor: CLIPImageProcessorPil) -> int:
    edges = processor.crop_size if processor.do_center_crop else processor.size
    height, width = edges.get("height"), edges.get("width")
    if height is None or height != width:
        raise EncodingError(f"the preprocessing makes {width} × {height} pixels; CLIP's towers read squares")
    return int(height)
