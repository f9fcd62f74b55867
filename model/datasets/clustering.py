"""Items that the same users had, under the same branches of a tree; knows nothing of texts and tokens.

Spectral embedding of the co-occurrence graph, then k-means in a k-means with bounded sizes, as in the collaborative
indexing of Hua et al. (arXiv 2305.06569) but balanced: every item is equally deep and no node has too many children.
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
"""E; on Toys, 128 put a user's next item below the same two nodes more often than 64 did (10.3 % against 9.3 %)."""


@dataclass(frozen=True)
class Tree:
    """How items are divided. No node has more than `branching` children."""

    branching: int
    seed: int

    def depth(self, num_items: int) -> int:
        """Levels that it takes to tell the items apart."""
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
    """A path of numbers from 1 for each item, all of one length and no two the same.

    `histories` are the rows of the items that each user had; items in none of them lie where those of their group lie
    on average.
    """
    rng = np.random.default_rng(tree.seed)
    with threadpool_limits(1):  # sums in a fixed order: the same seed gives the same paths
        embeddings = _with_places_for_all(_embeddings(histories, len(groups), tree.seed), groups)
        paths: dict[int, ItemPath] = {}
        # Rows come in the order of their first appearance in some files, which tells of the future: shuffle it away.
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


def _embeddings(histories: Sequence[NDArray[np.int64]], num_items: int, seed: int) -> NDArray[np.float64]:
    """Leading eigenvectors of the normalised co-occurrence graph, [N, E]; rows of unseen items are zero.

    The graph is Bᵀ·B for B = Du^-½·X·Di^-½, the normalised matrix of users and items, so that the right singular
    vectors of B are its eigenvectors and it need not be multiplied out. They are weighted by their eigenvalues: the
    weak ones are noise, and there are many of them where items are few.
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
    """Zero rows become the mean of their group, or of all items where the whole group is unseen."""
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
    """Parts of a node's items, so small that the levels below can tell them apart."""
    num_parts = int(np.ceil(round(len(embeddings) ** (1 / levels_left), 6)))
    if num_parts == 1:
        return np.zeros(len(embeddings), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal embeddings make fewer clusters, which is all right
        kmeans = KMeans(num_parts, n_init=1, random_state=tree.seed).fit(embeddings)
    return _bounded_assignment(kmeans.transform(embeddings), tree.branching ** (levels_left - 1))


def _bounded_assignment(distances: NDArray[np.float64], capacity: int) -> NDArray[np.int64]:
    """Each row's nearest column that has room, [N]; the closest pairs of a row and a column choose first."""
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
