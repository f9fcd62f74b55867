"""Clustering of items by their users into a tree; knows nothing of texts and tokens.

Spectral embedding of the co-occurrence graph, then recursive k-means with bounded cluster sizes: the collaborative
indexing of Hua et al. (arXiv 2305.06569), but balanced. All items have the same depth, and the number of children of a
node is bounded.
"""

# U users, N items, E embedding width, P parts of a node

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from model.progress import Progress

ItemPath = tuple[int, ...]

_WIDTH = 128
"""E; on Toys, a user's next item has the same first two nodes more often with 128 than with 64 (10.3 %, 9.3 %)."""


@dataclass(frozen=True)
class Tree:
    """Parameters of the tree: no node has more than `branching` children."""

    branching: int
    seed: int

    def depth(self, num_items: int) -> int:
        """Levels that this many items need."""
        levels = 1
        while self.branching**levels < num_items:
            levels += 1
        return levels


def item_paths(
    histories: Sequence[NDArray[np.int64]],
    groups: Sequence[str | None],
    tree: Tree,
    progress: Progress,
) -> list[ItemPath]:
    """A path of numbers, counted from 1, for each item; all have the same length and no two are equal.

    `histories` has the items of each user, as rows. An item in none of them is placed at the mean of its group.
    """
    rng = np.random.default_rng(tree.seed)
    with threadpool_limits(1):  # sums in a fixed order: the same seed gives the same paths
        embeddings = _with_places_for_all(purchase_vectors(histories, len(groups), tree.seed), groups)
        paths: dict[int, ItemPath] = {}
        # Some files list items by first appearance, which leaks the future: shuffle them.
        todo: list[tuple[ItemPath, NDArray[np.int64]]] = [((), rng.permutation(len(groups)))]
        depth = tree.depth(len(groups))
        while todo:
            path, items = todo.pop()
            levels_left = depth - len(path)
            if levels_left == 1:
                paths.update({int(item): (*path, number) for number, item in enumerate(items, start=1)})
                progress("clustering items", len(paths), len(groups))
                continue
            parts = _split(embeddings[items], levels_left, tree)
            todo.extend(((*path, int(part) + 1), items[parts == part]) for part in np.unique(parts))
    return [paths[item] for item in range(len(groups))]


def purchase_vectors(histories: Sequence[NDArray[np.int64]], num_items: int, seed: int) -> NDArray[np.float64]:
    """Leading eigenvectors of the normalised co-occurrence graph, [N, E]; rows of unseen items are zero.

    The graph is Bᵀ·B for B = Du^-½·X·Di^-½, the normalised user–item matrix, so its eigenvectors are the right singular
    vectors of B, and the product is never computed. Eigenvectors are weighted by their eigenvalues, because weak ones
    are mostly noise.
    """
    had = [np.unique(items) for items in histories]
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in had])]).astype(np.int64)
    columns = np.concatenate([*had, np.zeros(0, np.int64)]).astype(np.int64)
    per_user, per_item = np.diff(offsets), np.bincount(columns, minlength=num_items)
    values = 1 / np.sqrt(np.repeat(per_user, per_user) * per_item[columns])
    graph = sparse.csr_matrix((values, columns, offsets), shape=(len(had), num_items))
    width = min(_WIDTH, num_items - 1, len(had) - 1)
    if width < 1 or not len(columns):
        return np.zeros((num_items, 1))
    found = TruncatedSVD(width, random_state=seed, n_iter=7).fit(graph)
    vectors = found.components_.T * found.singular_values_**2
    vectors[per_item == 0] = 0
    unit: NDArray[np.float64] = normalize(vectors)
    return unit


def _with_places_for_all(embeddings: NDArray[np.float64], groups: Sequence[str | None]) -> NDArray[np.float64]:
    """Replace zero rows by the mean of their group, or of all items if the whole group is unseen."""
    is_unseen = ~embeddings.any(axis=1)
    if is_unseen.all():
        return embeddings
    placed = embeddings.copy()
    names = np.array(["" if group is None else group for group in groups], dtype=object)
    for name in set(names[is_unseen]):
        in_group = names == name
        model = in_group & ~is_unseen
        placed[in_group & is_unseen] = embeddings[model if model.any() else ~is_unseen].mean(axis=0)
    return placed


def _split(embeddings: NDArray[np.float64], levels_left: int, tree: Tree) -> NDArray[np.int64]:
    """The part of each of a node's items; every part fits into the levels below."""
    num_parts = int(np.ceil(round(len(embeddings) ** (1 / levels_left), 6)))
    if num_parts == 1:
        return np.zeros(len(embeddings), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters, where embeddings are equal, are fine
        kmeans = KMeans(num_parts, n_init=1, random_state=tree.seed).fit(embeddings)
    return _bounded_assignment(kmeans.transform(embeddings), tree.branching ** (levels_left - 1))


def _bounded_assignment(distances: NDArray[np.float64], capacity: int) -> NDArray[np.int64]:
    """Assign each row to the nearest column that has room, [N]; the closest pairs are assigned first."""
    num_rows, num_columns = distances.shape
    assert num_rows <= capacity * num_columns, (distances.shape, capacity)
    assigned = np.full(num_rows, -1, dtype=np.int64)
    room = [capacity] * num_columns
    rows, columns = np.unravel_index(np.argsort(distances, axis=None, kind="stable"), distances.shape)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if assigned[row] < 0 and room[column]:
            assigned[row] = column
            room[column] -= 1
    return assigned
