"""Prompts of a batch, padded to one shape."""

# B prompts, S tokens of the longest, I images, F feature width

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.prompts.prompt import Ids, Prompt

PROMPT_IDS = ("input_ids", "whole_word_ids", "category_ids")


def pad_prompts(prompts: Sequence[Prompt]) -> dict[str, Ids]:
    """The ids of prompts [B, S] by name, padded at the end with 0."""
    return {name: pad_ids([getattr(prompt, name) for prompt in prompts]) for name in PROMPT_IDS}


def pad_ids(rows: Sequence[Sequence[int] | Ids], filler: int = 0) -> Ids:
    """Rows of ids side by side, each filled up to the longest: [B, S]."""
    padded = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return padded


def pad_features(rows: Sequence[NDArray[np.floating]], num_images: int, width: int) -> NDArray[np.float32]:
    """Image embeddings [I, F] of each prompt, filled up with zeros to [B, num_images, width]."""
    padded = np.zeros((len(rows), num_images, width), dtype=np.float32)
    for line, row in zip(padded, rows, strict=True):
        if row.size:
            line[: len(row), : row.shape[1]] = row
    return padded
