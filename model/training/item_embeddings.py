"""Token embeddings that begin as vectors of the items whose identifiers have these tokens."""

# N items, K directions, D width, V vocabulary

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.datasets.dataset import Dataset
from model.datasets.item_vectors import Floats, Weights, item_vectors
from model.datasets.semantic import trained_items
from model.prompts.assembly import TokenRows

_LEAST_SPREAD = 1e-6
"""Of what earlier tokens leave of the vectors: less is rounding."""


def embed_items(embeddings: Tensor, dataset: Dataset, identifiers: TokenRows, weights: Weights, seed: int) -> None:
    """Set rows of token embeddings [V, D] to means of their items' vectors.

    The vectors are projected to the D directions that consecutive training purchases share most. An identifier's first
    token begins at the mean of its items, the next one at the mean of what the first leaves of them, and so on. All
    places keep the standard deviation of the embeddings; dimensions beyond the directions keep their values. Raises
    DatasetError if the dataset lacks what a weight asks for.
    """
    found = item_vectors(dataset, weights, embeddings.shape[1], trained_items(dataset), seed)
    vectors, rows = found.vectors, np.flatnonzero(found.is_known)
    lengths, spread = np.diff(identifiers.offsets), float(embeddings.std())
    is_set = np.zeros(len(embeddings), dtype=np.bool_)
    for place in range(int(lengths.max(initial=0))):
        rows = rows[lengths[rows] > place]
        tokens, numbers = np.unique(identifiers.flat[identifiers.offsets[rows] + place], return_inverse=True)
        means = _means(vectors[rows], numbers, len(tokens))
        vectors[rows] -= means[numbers]
        is_new = ~is_set[tokens]
        size = float(np.sqrt((means[is_new] ** 2).mean())) if is_new.any() else 0.0
        if size < _LEAST_SPREAD:
            continue
        chosen = tokens[is_new]
        embeddings[chosen, : means.shape[1]] = torch.from_numpy(means[is_new] * (spread / size)).to(embeddings)
        is_set[chosen] = True


def _means(vectors: Floats, groups: NDArray[np.int64], num_groups: int) -> Floats:
    """Means of the vectors [N, K] of each group."""
    sums = np.zeros((num_groups, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, groups, vectors)
    return (sums / np.bincount(groups, minlength=num_groups)[:, None]).astype(np.float32)
