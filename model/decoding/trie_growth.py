"""Adding a few identifiers to a trie, in one pass over its arrays for each instead of sorting all of them again."""

# M nodes, N leaves

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.decoding.trie import Trie
from model.errors import CatalogError


@dataclass(frozen=True)
class _Branch:
    """Where an identifier leaves the trie's paths."""

    path: tuple[int, ...]
    """The nodes that it shares, from the root on; the first new node is a child of the last."""
    places: tuple[int, ...]
    """Where its new nodes go, one on each level: the numbers of the nodes that they come before."""
    leaf: int
    """The leaf that it comes before."""


def with_identifier(trie: Trie, tokens: Sequence[int], row: int) -> Trie:
    """The trie with one more identifier, which ends in `</s>` and belongs to the row N.

    Equals `Trie.build` of all identifiers. Raises CatalogError if the trie has the identifier.
    """
    branch = _branch(trie, tokens)
    places = np.array(branch.places)
    num_new = len(places)
    shared = len(branch.path) - 1
    lo = trie.leaf_lo + (trie.leaf_lo >= branch.leaf)
    hi = trie.leaf_hi + (trie.leaf_hi > branch.leaf)
    path = list(branch.path)
    lo[path] = trie.leaf_lo[path]
    hi[path] = trie.leaf_hi[path] + 1
    return Trie(
        token=np.insert(trie.token, places, tokens[shared:]),
        first_child=_first_children(trie, branch),
        leaf_lo=np.insert(lo, places, branch.leaf).astype(np.int32),
        leaf_hi=np.insert(hi, places, branch.leaf + 1).astype(np.int32),
        rows_of_leaves=np.insert(trie.rows_of_leaves, branch.leaf, row),
        fanout=_longest(trie.fanout, shared, num_new, int(np.diff(trie.first_child[path[-1] : path[-1] + 2])[0]) + 1),
        level_widths=_wider(trie.level_widths, shared, len(tokens)),
    )


def with_leaf(leaves_of_rows: NDArray[np.int32], leaf: int) -> NDArray[np.int32]:
    """`Trie.leaves_of_rows` [N + 1] with a leaf for the row N, before which there are `leaf` leaves."""
    return np.append(leaves_of_rows + (leaves_of_rows >= leaf), leaf).astype(np.int32)


def _branch(trie: Trie, tokens: Sequence[int]) -> _Branch:
    path = [0]
    for depth, token in enumerate(tokens):
        start, end = trie.first_child[path[-1] : path[-1] + 2].tolist()
        place = start + int(np.searchsorted(trie.token[start:end], token))
        if place < end and trie.token[place] == token:
            path.append(place)
            continue
        leaf = trie.leaf_lo[place] if place < end else trie.leaf_hi[place - 1]
        places = [place]
        while len(places) < len(tokens) - depth:
            places.append(int(trie.first_child[places[-1]]))  # where children of a node before it end
        return _Branch(tuple(path), tuple(places), int(leaf))
    raise CatalogError("the trie has this identifier already; identifiers must be unique")


def _first_children(trie: Trie, branch: _Branch) -> NDArray[np.int32]:
    """A node's children move by the new nodes whose parents come before it."""
    places = branch.places
    moved = trie.first_child.copy()
    moved[branch.path[-1] + 1 :] += 1
    for place in places[:-1]:
        moved[place:] += 1
    own = [place + number for number, place in enumerate(places[1:], start=1)]
    own.append(int(trie.first_child[places[-1]]) + len(places))
    return np.insert(moved, places, own).astype(np.int32)


def _wider(widths: tuple[int, ...], start: int, end: int) -> tuple[int, ...]:
    """The levels' widths with one more node from depth `start` to before `end`."""
    grown = [*widths, *[0] * (end - len(widths))]
    return tuple(width + (start <= depth < end) for depth, width in enumerate(grown))


def _longest(fanout: tuple[int, ...], depth: int, num_new: int, num_children: int) -> tuple[int, ...]:
    """The largest numbers of children, if a node at `depth` has `num_children` and the new ones below it one each."""
    grown = [*fanout, *[0] * (depth + num_new - len(fanout))]
    for level, count in enumerate([num_children, *[1] * (num_new - 1)], start=depth):
        grown[level] = max(grown[level], count)
    return tuple(grown)
