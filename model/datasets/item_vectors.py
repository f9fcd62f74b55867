"""Vectors of items to be divided into codes: of pictures, titles and training purchases, weighted and joined.

Knows nothing of codes and of identifiers.
"""

# N items, F embedding width, E width of a part, D width of the vectors, B pairs of purchases

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV

from model.bundle.codebook import Projection, of_length_one
from model.datasets.clustering import purchase_vectors
from model.datasets.dataset import Dataset
from model.datasets.item_texts import item_texts
from model.errors import DatasetError

Floats = NDArray[np.float32]

_WIDTH, _WIDTH_OF_COUNTS = 64, 128
"""Most dimensions of pictures, and of what counts words or purchases."""
_RIDGE = 1e-2
"""Added to the variance of each direction, as a share of the mean variance."""
_ALPHAS = tuple(10.0**power for power in range(-3, 4))


@dataclass(frozen=True)
class Weights:
    """How much each part counts; a part with weight 0 is left out.

    `text_columns` of the items are read with the titles.
    """

    pictures: float = 1.0
    titles: float = 0.0
    purchases: float = 0.0
    text_columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """`vectors` [N, D] of all items, zero for those that nothing is known of (`is_known`).

    `projection` gives the vector of an item from its picture's embedding alone: exactly if the vectors are made of
    pictures only, else what pictures say about it (ridge regression). None if the dataset has no embeddings.
    """

    vectors: Floats
    is_known: NDArray[np.bool_]
    projection: Projection | None
    embeddings: Floats | None  # [N, F], of length 1; zero for items without one
    correlations: tuple[float, ...] = ()
    """Of consecutive purchases, in each of the shared directions."""


def item_vectors(
    dataset: Dataset, weights: Weights, num_directions: int, fitted: NDArray[np.bool_], seed: int
) -> ItemVectors:
    """Vectors of the dataset's items; only `fitted` items [N] decide what the dimensions are.

    With `num_directions`, the vectors are projected to the directions that consecutive purchases share most.
    Raises DatasetError if the dataset lacks what a weight asks for.
    """
    parts: list[Floats] = []
    embeddings = _embeddings(dataset)
    projection = None
    if weights.pictures:
        if embeddings is None:
            raise DatasetError(
                f"{dataset.provenance.name} has no picture embeddings; give a weight of 0 to pictures, or prepare it "
                "with --features"
            )
        projection = _principal(embeddings, fitted, weights.pictures)
        parts.append(np.where(embeddings.any(axis=1, keepdims=True), projection.positions(embeddings), 0))
    if weights.titles:
        parts.append(weights.titles * _titles(dataset, weights.text_columns, fitted, seed))
    if weights.purchases:
        parts.append(weights.purchases * _purchases(dataset, seed))
    if not parts:
        raise DatasetError("all weights are 0; give one of pictures, titles and purchases a weight above 0")
    vectors = np.concatenate(parts, axis=1).astype(np.float32)
    is_known: NDArray[np.bool_] = np.asarray(vectors.any(axis=1))
    shared = None
    if num_directions:
        shared = shared_directions(vectors, is_known, *_consecutive(dataset, fitted), num_directions)
        vectors = np.where(is_known[:, None], (vectors - shared.mean) @ shared.directions, 0).astype(np.float32)
    if len(parts) > 1 or projection is None:
        projection = None if embeddings is None else _regressed(embeddings, vectors, is_known & fitted)
    elif shared is not None:
        projection = _composed(projection, shared)
    correlations = () if shared is None else shared.correlations
    return ItemVectors(vectors, is_known, projection, embeddings, correlations)


@dataclass(frozen=True, eq=False)
class SharedDirections:
    """Projections of unit variance, the most correlated first."""

    mean: Floats  # [D]
    directions: Floats  # [D, K]
    correlations: tuple[float, ...]


def shared_directions(
    vectors: Floats,
    is_known: NDArray[np.bool_],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    num_directions: int,
) -> SharedDirections:
    """Directions in which an item and the next one agree, of pairs (before, after) of items, [B] each.

    Canonical correlation analysis in which both sides have one projection, because an item is once the earlier and once
    the later one: each pair counts in both orders, which makes it one symmetric eigenvalue problem (scikit-learn's CCA
    gives each side a projection of its own). Raises DatasetError if there are no pairs.
    """
    usable = is_known[before] & is_known[after]
    before, after = before[usable], after[usable]
    if not len(before):
        raise DatasetError(
            "no user has two consecutive training purchases of known items, which shared directions are found from; "
            "give --directions 0"
        )
    width = vectors.shape[1]
    mean = np.concatenate([vectors[before], vectors[after]]).mean(axis=0)
    one, other = (vectors[before] - mean).astype(np.float64), (vectors[after] - mean).astype(np.float64)
    variance = (one.T @ one + other.T @ other) / (2 * len(one))
    variance += _RIDGE * np.trace(variance) / width * np.eye(width) + np.finfo(np.float32).tiny * np.eye(width)
    shared = (one.T @ other + other.T @ one) / (2 * len(one))
    values, directions = linalg.eigh(shared, variance)
    count = min(num_directions, width)
    chosen = directions[:, ::-1][:, :count]
    signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(count)])  # a direction has no sign of its own
    found = values[::-1][:count]
    return SharedDirections(mean.astype(np.float32), (chosen * signs).astype(np.float32), tuple(found.tolist()))


def _embeddings(dataset: Dataset) -> Floats | None:
    """[N, F] of length 1; zero for items without one."""
    if dataset.features is None:
        return None
    found = dataset.features.of(dataset.catalog)
    rows = np.zeros((len(dataset.catalog), found.dim), dtype=np.float32)
    known = [row for row in map(dataset.catalog.row_of, found.item_ids) if row is not None]
    rows[known] = of_length_one(found.features)
    return rows


def _principal(embeddings: Floats, fitted: NDArray[np.bool_], weight: float) -> Projection:
    """The leading directions of the fitted items' embeddings, times the weight."""
    rows = embeddings[fitted & embeddings.any(axis=1)]
    if len(rows) < 2:
        raise DatasetError("fewer than 2 trained items have a picture embedding; give a weight of 0 to pictures")
    found = PCA(min(_WIDTH, *rows.shape), svd_solver="full").fit(rows)
    matrix = weight * found.components_.T
    return Projection(matrix.astype(np.float32), (-found.mean_ @ matrix).astype(np.float32))


def _titles(dataset: Dataset, columns: Sequence[str], fitted: NDArray[np.bool_], seed: int) -> Floats:
    """Leading directions of TF-IDF over titles and columns [N, E], of length 1; zero for items without a known word."""
    texts = item_texts(dataset.catalog, columns)
    known = [text for text, is_fitted in zip(texts, fitted, strict=True) if is_fitted and text.strip()]
    if not known:
        raise DatasetError(f"{dataset.provenance.name} has no titles; give a weight of 0 to titles")
    counted = TfidfVectorizer(sublinear_tf=True, min_df=2 if len(known) > _WIDTH else 1, ngram_range=(1, 2)).fit(known)
    return _reduced(counted.transform(known), counted.transform(texts), seed)


def _reduced(fitted: sparse.csr_matrix, every: sparse.csr_matrix, seed: int) -> Floats:
    width = min(_WIDTH_OF_COUNTS, min(fitted.shape) - 1)
    if width < 1:
        return np.asarray(every.todense(), dtype=np.float32)
    return of_length_one(TruncatedSVD(width, random_state=seed, n_iter=7).fit(fitted).transform(every))


def _purchases(dataset: Dataset, seed: int) -> Floats:
    """Leading directions of the graph of training purchases [N, E], of length 1; zero for items nobody bought."""
    sequences = dataset.sequences
    histories = [sequences.seen(user, "train") for user in range(len(sequences))]
    return purchase_vectors(histories, len(dataset.catalog), seed)[:, :_WIDTH_OF_COUNTS].astype(np.float32)


def _consecutive(dataset: Dataset, fitted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of fitted items that a user bought one after the other in training, [B] each."""
    sequences = dataset.sequences
    histories = [sequences.seen(user, "train") for user in range(len(sequences))]
    before = np.concatenate([np.zeros(0, np.int64), *(history[:-1] for history in histories)])
    after = np.concatenate([np.zeros(0, np.int64), *(history[1:] for history in histories)])
    usable = fitted[before] & fitted[after]
    return before[usable], after[usable]


def _composed(projection: Projection, shared: SharedDirections) -> Projection:
    """First the projection, then the shared directions."""
    offset = (projection.offset - shared.mean) @ shared.directions
    return Projection(projection.matrix @ shared.directions, offset.astype(np.float32))


def _regressed(embeddings: Floats, vectors: Floats, usable: NDArray[np.bool_]) -> Projection | None:
    """What embeddings say about vectors: [F] to [D]."""
    usable = usable & embeddings.any(axis=1)
    if usable.sum() < 2:
        return None
    found = RidgeCV(_ALPHAS).fit(embeddings[usable], vectors[usable])
    matrix = found.coef_.reshape(vectors.shape[1], -1).T
    offset = np.array(np.broadcast_to(found.intercept_, vectors.shape[1:]), dtype=np.float32)
    return Projection(np.ascontiguousarray(matrix, dtype=np.float32), offset)
