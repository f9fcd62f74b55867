"""Codes of vectors by residual k-means; knows nothing of items' texts and of tokens.

The first level's clusters are those of the vectors, the next one's those of what the nearest centres leave of them.
"""

# N vectors, D their width, L levels, K codes of a level, P paths

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from model.bundle.codebook import Codes, Floats


@dataclass(frozen=True, eq=False)
class Levels:
    """Centres of each level, [K, D] each."""

    centres: tuple[Floats, ...]

    @classmethod
    def of(cls, vectors: Floats, sizes: Sequence[int], seed: int, num_starts: int = 10) -> Levels:
        """Cluster vectors [N, D]; the best of `num_starts` random starts is kept."""
        centres, left = [], vectors
        for size in sizes:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters, where vectors are equal, are fine
                found = KMeans(min(size, len(left)), n_init=num_starts, random_state=seed).fit(left)
            missing = size - len(found.cluster_centers_)  # codes that no vector has
            level = np.concatenate([found.cluster_centers_, np.repeat(found.cluster_centers_[:1], missing, axis=0)])
            centres.append(level.astype(np.float32))
            left = left - level[found.labels_].astype(np.float32)
        return cls(tuple(centres))

    def codes_of(self, vectors: Floats) -> Codes:
        """The nearest centre of each level in turn, [N, L]."""
        codes, left = [], vectors
        for level in self.centres:
            distances = (left**2).sum(axis=1, keepdims=True) - 2 * left @ level.T + (level**2).sum(axis=1)
            nearest = distances.argmin(axis=1)
            codes.append(nearest)
            left = left - level[nearest]
        return np.stack(codes, axis=1).astype(np.int32)


def share_on_paths(codes: Codes, seen: Codes) -> float:
    """The share of paths [N, L] that are among others [P, L]."""
    known = set(map(tuple, seen.tolist()))
    return float(np.mean([tuple(path) in known for path in codes.tolist()])) if len(codes) else 1.0
