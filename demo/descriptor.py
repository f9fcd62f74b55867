"""`demo-descriptor`: a fixed description of a picture in 512 numbers, in the place of CLIP's embedding.

It is not learned and knows nothing of the world: colours and edges over a grid and shares of colours are mixed
by a fixed random projection and scaled to length 1. Pictures that look alike have descriptions that are similar.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAME = "demo-descriptor"
DIM = 512

_SIDE = 64  # pictures are reduced to _SIDE x _SIDE pixels
_GRID = 8  # and looked at in _GRID x _GRID cells
_ORIENTATIONS = 4
_LEVELS = 4  # of each colour channel, in the shares of colours
_NUM_STATISTICS = _GRID * _GRID * (3 + 3 + _ORIENTATIONS) + _LEVELS**3
_SEED = 512

Floats = NDArray[np.float64]


def describe(picture: Image.Image) -> NDArray[np.float32]:
    """The description of an RGB picture, [DIM], of length 1."""
    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64) / 255  # [_SIDE, _SIDE, 3]
    cells = _cells(pixels)
    statistics = np.concatenate(
        [
            (cells.mean(axis=1) - 0.75).ravel(),  # the pictures' backgrounds are light
            cells.std(axis=1).ravel(),
            _edges(pixels).ravel(),
            4 * _colour_shares(pixels),
        ]
    )
    assert statistics.shape == (_NUM_STATISTICS,)
    mixed = statistics @ _projection()
    return np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32)


def _cells(values: Floats) -> Floats:
    """Split [_SIDE, _SIDE, C] into [cells, pixels of a cell, C]."""
    size = _SIDE // _GRID
    split = values.reshape(_GRID, size, _GRID, size, -1).swapaxes(1, 2)
    return split.reshape(_GRID * _GRID, size * size, -1)


def _edges(pixels: Floats) -> Floats:
    """Mean strength of the edges of each orientation, [cells, _ORIENTATIONS]."""
    down, right = np.gradient(pixels.mean(axis=2))
    strength = np.hypot(down, right)
    orientation = np.floor(np.mod(np.arctan2(down, right), np.pi) / np.pi * _ORIENTATIONS) % _ORIENTATIONS
    is_oriented = orientation[..., None] == np.arange(_ORIENTATIONS)
    edges: Floats = 3 * _cells(strength[..., None] * is_oriented).mean(axis=1)
    return edges


def _colour_shares(pixels: Floats) -> Floats:
    """Share of the pixels in each cube of the colour space, [_LEVELS ** 3]."""
    levels = np.minimum((pixels * _LEVELS).astype(np.int64), _LEVELS - 1).reshape(-1, 3)
    cubes = levels @ np.array([_LEVELS**2, _LEVELS, 1])
    return np.bincount(cubes, minlength=_LEVELS**3) / len(cubes)


@cache
def _projection() -> Floats:
    return np.random.default_rng(_SEED).standard_normal((_NUM_STATISTICS, DIM))
