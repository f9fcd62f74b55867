"""Image towers in ONNX Runtime.

A file from `export_onnx` holds the encoder's name and preprocessing, so that it can be used alone. Another file has one
input [B, 3, S, S] and one output [B, D]; the encoder's name must be given, and S if the file leaves it dynamic.
"""

# B pictures, S edge of the encoder's input, D width of an embedding

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_cache.encoding.encoders import check_encoder
from feature_cache.encoding.errors import EncodingError, MissingExtraError
from feature_cache.encoding.opening import OnnxSource
from feature_cache.encoding.preprocessing import Preprocessing
from feature_cache.encoding.towers import Encoder, sha256_of

try:
    from quiet_libraries.onnx_runtime import onnxruntime
except ImportError as _error:  # pragma: no cover - the extra is installed where tests run
    raise MissingExtraError("ONNX Runtime", "encode", _error) from _error

NAME, PREPROCESSING = "vip5.encoder", "vip5.preprocessing"  # keys of the file's metadata

_EMBEDDINGS = "image_embeds"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxTower:
    """A session of ONNX Runtime."""

    def __init__(self, path: Path, device: str, num_threads: int | None = None) -> None:
        """`device` is cpu, cuda or cuda:N. Raises EncodingError for a file or a device that cannot be used."""
        kind, _, index = device.partition(":")
        provider, available = _PROVIDERS.get(kind), onnxruntime.get_available_providers()
        if provider is None or provider not in available:
            raise EncodingError(
                f"ONNX Runtime cannot run on {device!r}, only on {', '.join(available)}; for CUDA, pip uninstall"
                " onnxruntime, then pip install onnxruntime-gpu"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # failures are raised
        options.intra_op_num_threads = num_threads or 0
        placed = (provider, {"device_id": int(index)}) if index else provider
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[placed])
        except Exception as error:  # the library's exceptions have no base class of their own
            raise EncodingError(f"{path} is not an ONNX file that can be run ({error})") from error
        if self._session.get_providers()[0] != provider:
            raise EncodingError(f"ONNX Runtime cannot start {provider}; check the CUDA libraries, or use --device cpu")
        self._input, self.image_size = _input(path, self._session)
        self._output, self._dim = _output(path, self._session)

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        (embeddings,) = self._session.run([self._output], {self._input: pixels})
        return np.asarray(embeddings, dtype=np.float32)


def load_onnx(source: OnnxSource) -> Encoder:
    """Raises EncodingError."""
    tower = OnnxTower(source.path, source.device, source.num_threads)
    preprocessing = _preprocessing(source, tower)
    name = source.name or tower.metadata.get(NAME)
    if name is None:
        raise EncodingError(f"{source.path} does not say which encoder it is; name it with --encoder")
    if name != tower.metadata.get(NAME, name):
        raise EncodingError(f"{source.path} is the encoder {tower.metadata[NAME]}, not {name}; give the file of {name}")
    if tower.image_size not in {None, preprocessing.image_size}:
        raise EncodingError(
            f"{source.path} reads pictures of {tower.image_size} pixels, not {preprocessing.image_size}; give the right"
            " --image-size"
        )
    check_encoder(name, tower.dim, preprocessing.image_size)
    return Encoder(name, tower, preprocessing, sha256_of(source.path))


def _preprocessing(source: OnnxSource, tower: OnnxTower) -> Preprocessing:
    settings = tower.metadata.get(PREPROCESSING)
    if settings is not None:
        return Preprocessing.from_settings(json.loads(settings), f"{source.path}: {PREPROCESSING}")
    image_size = source.image_size or tower.image_size
    if image_size is None:
        raise EncodingError(
            f"{source.path} does not say how large its pictures are; give --image-size, for example 224"
        )
    return Preprocessing.of_size(image_size)


def _input(path: Path, session: onnxruntime.InferenceSession) -> tuple[str, int | None]:
    """Name of the input, and the edge of its pictures if the file fixes it."""
    inputs = session.get_inputs()
    shape = inputs[0].shape
    is_batch_of_pictures = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shape) == 4
    if not is_batch_of_pictures or shape[1] not in (3, None) or isinstance(shape[0], int):
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise EncodingError(
            f"{path} has the inputs {found}; it must have one float input [batch, 3, S, S], batch dynamic"
        )
    return inputs[0].name, shape[2] if isinstance(shape[2], int) else None


def _output(path: Path, session: onnxruntime.InferenceSession) -> tuple[str, int]:
    """Name and width of the output; if there are several, of the one that transformers calls image_embeds."""
    outputs = session.get_outputs()
    embeddings = outputs[0] if len(outputs) == 1 else next((one for one in outputs if one.name == _EMBEDDINGS), None)
    if embeddings is None or len(embeddings.shape) != 2 or not isinstance(embeddings.shape[1], int):
        found = ", ".join(f"{one.name} {one.shape}" for one in outputs)
        raise EncodingError(
            f"{path} has the outputs {found}; it must have one output [batch, D] of embeddings, D fixed"
        )
    return embeddings.name, embeddings.shape[1]
