"""Exports image towers from torch to ONNX."""

# B pictures, S edge of the encoder's input, D width of an embedding

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from feature_cache.encoding.errors import EncodingError, MissingExtraError
from feature_cache.encoding.onnx_tower import NAME, PREPROCESSING, OnnxTower
from feature_cache.encoding.towers import Encoder, ImageTower, TorchTower

try:
    import onnx
    import onnxscript  # noqa: F401 - torch's exporter needs it
except ImportError as _error:  # pragma: no cover - the extra is installed where tests run
    raise MissingExtraError("torch's ONNX exporter", "encode", _error) from _error

MAX_COSINE_DISTANCE = 1e-3  # between the file and the tower in torch

_OPSET = 18


def export_onnx(encoder: Encoder, out: Path) -> float:
    """Export a tower that runs on the CPU; returns the largest cosine distance between both on random pictures.

    The file is written only if they agree. Raises EncodingError if they do not.
    """
    assert isinstance(encoder.tower, TorchTower)
    size = encoder.preprocessing.image_size
    pixels = np.random.default_rng(0).standard_normal((3, 3, size, size), dtype=np.float32)
    model = _trace(encoder.tower.module, torch.from_numpy(pixels[:2]))
    onnx.helper.set_model_props(model, {NAME: encoder.name, PREPROCESSING: encoder.preprocessing.settings})
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(model.SerializeToString())
        distance = _cosine_distance(OnnxTower(Path(name), "cpu"), encoder.tower, pixels)
        if not distance <= MAX_COSINE_DISTANCE:
            raise EncodingError(
                f"the cosine distance between the exported {encoder.name} and torch's is {distance:.1e}, more than"
                f" {MAX_COSINE_DISTANCE}; the file is not written"
            )
        Path(name).replace(out)
    finally:
        Path(name).unlink(missing_ok=True)
    return distance


def _trace(module: nn.Module, pixels: torch.Tensor) -> onnx.ModelProto:
    with _quiet():
        program = torch.onnx.export(
            module,
            (pixels,),
            input_names=["pixels"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _cosine_distance(first: ImageTower, second: ImageTower, pixels: NDArray[np.float32]) -> float:
    a, b = first.embed(pixels), second.embed(pixels)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float((1 - cosines).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's logs and its warnings of deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
