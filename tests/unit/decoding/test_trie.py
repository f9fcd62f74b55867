from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieArena
from model.errors import CatalogError
from tests.unit.decoding.tables import EOS, Path, build_trie, nodes_by_level

ITEMS = st.lists(st.lists(st.integers(2, 6), min_size=1, max_size=4).map(tuple), min_size=1, max_size=25, unique=True)


@given(ITEMS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_walking_a_trie_finds_every_identifier_once_in_lexicographic_order(items: list[Path]) -> None:
    trie = build_trie(items)
    walked = _walk(trie, 0, ())
    assert walked == sorted((*item, EOS) for item in items)
    assert [items[row] for row in trie.rows_of_leaves] == [path[:-1] for path in walked]
    assert trie.leaves_of_rows[trie.rows_of_leaves].tolist() == list(range(len(items)))


@given(ITEMS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_node_covers_exactly_the_leaves_below_it(items: list[Path]) -> None:
    trie = build_trie(items)
    ordered = sorted((*item, EOS) for item in items)
    seen = 0
    stack: list[tuple[int, Path]] = [(0, ())]
    while stack:
        node, prefix = stack.pop()
        below = [leaf for leaf, path in enumerate(ordered) if path[: len(prefix)] == prefix]
        assert list(range(trie.leaf_lo[node], trie.leaf_hi[node])) == below
        stack += [(child, (*prefix, int(trie.token[child]))) for child in _children(trie, node)]
        seen += 1
    assert seen == trie.num_nodes == 1 + sum(nodes_by_level(items))


@given(ITEMS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_sizes_of_levels_are_those_of_the_prefixes(items: list[Path]) -> None:
    trie = build_trie(items)
    prefixes = {(*item, EOS)[:length] for item in items for length in range(len(item) + 2)}
    inner = [[prefix for prefix in prefixes if len(prefix) == depth and prefix[-1:] != (EOS,)] for depth in range(6)]
    fanouts = [[sum(p[:-1] == prefix for p in prefixes if p) for prefix in level] for level in inner if level]
    assert trie.fanout == tuple(max(fanout) for fanout in fanouts)
    assert trie.level_widths == tuple(nodes_by_level(items))
    assert trie.depth == 1 + max(map(len, items))
    assert trie.num_leaves == len(items)


def test_a_single_item_is_a_chain() -> None:
    trie = build_trie([(5, 3)])
    assert trie.token.tolist() == [0, 5, 3, EOS]
    assert trie.first_child.tolist() == [1, 2, 3, 4, 4]
    assert (trie.fanout, trie.level_widths, trie.num_leaves) == ((1, 1, 1), (1, 1, 1), 1)


def test_an_identifier_that_is_a_prefix_of_another_ends_at_an_inner_node() -> None:
    trie = build_trie([(4, 2), (4,)])
    (inner,) = _children(trie, 0)
    assert [int(trie.token[child]) for child in _children(trie, inner)] == [EOS, 2]
    assert trie.rows_of_leaves.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the catalog has no identifier; at least one item is required"),
        ([(3,), (), (4,)], "the identifier of row 1 has no tokens; give it a text"),
        (
            [(3,), (4, 2), (2, EOS, 5)],
            "the identifier of row 2 contains </s>, which ends identifiers; give it another text",
        ),
        ([(3,), (4, 2), (2,), (4, 2)], "rows 1 and 3 have the same identifier; identifiers must be unique"),
    ],
)
def test_identifiers_that_cannot_be_decoded_are_refused(items: Sequence[Path], message: str) -> None:
    with pytest.raises(CatalogError) as raised:
        build_trie(items)
    assert str(raised.value) == message


def test_an_arena_holds_each_trie_as_it_is_alone() -> None:
    catalogs: list[list[Path]] = [[(2, 3), (2,), (4, 4, 4)], [(6,)], [(5, 2), (3, 3)]]
    tries = [build_trie(items) for items in catalogs]
    arena = TrieArena.of(tries)
    for trie, root in zip(tries, arena.roots, strict=True):
        nodes = slice(root, root + trie.num_nodes)
        assert torch.equal(arena.nodes.token[nodes], torch.from_numpy(trie.token))
        assert torch.equal(arena.nodes.leaf_lo[nodes], torch.from_numpy(trie.leaf_lo))
        assert torch.equal(arena.nodes.leaf_hi[nodes], torch.from_numpy(trie.leaf_hi))
        ends = arena.nodes.first_child[root : root + trie.num_nodes + 1]
        assert torch.equal(ends - root, torch.from_numpy(trie.first_child))


def test_the_most_children_of_several_tries_are_those_of_the_widest_nodes_at_each_depth() -> None:
    arena = TrieArena.of([build_trie([(2, 3), (2,), (4, 4, 4)]), build_trie([(5,), (6,), (7,)]), build_trie([(2,)])])
    assert arena.max_children([0], 1) == (2, 2, 1, 1)
    assert arena.max_children([0], 2) == arena.max_children([0], 20) == (2, 3, 2, 1)
    assert arena.max_children([1, 2, 1], 2) == (3, 2)
    assert arena.max_children([1, 0], 3) == (3, 3, 2, 1)


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 2047, 2048, 2049, 3000, 5000])
def test_no_nodes_of_a_very_wide_level_have_more_children_than_is_said(num_nodes: int) -> None:
    trie = build_trie([(2 + first, 2 + second) for first in range(3000) for second in range(1 + first % 3)])
    fanouts = np.sort(np.diff(trie.first_child[1 : 1 + 3000 + 1]))[::-1]
    root, said, _ = trie.max_children(num_nodes)
    assert root == 3000
    assert said >= fanouts[:num_nodes].sum()
    if num_nodes <= 2048:
        assert said == fanouts[:num_nodes].sum()


def _children(trie: Trie, node: int) -> list[int]:
    return list(range(trie.first_child[node], trie.first_child[node + 1]))


def _walk(trie: Trie, node: int, prefix: Path) -> list[Path]:
    children = _children(trie, node)
    if not children:
        return [prefix]
    tokens = [int(trie.token[child]) for child in children]
    assert tokens == sorted(set(tokens))
    return [
        path for child, token in zip(children, tokens, strict=True) for path in _walk(trie, child, (*prefix, token))
    ]


def test_walking_finds_the_order_of_leaves_in_a_large_catalog() -> None:
    generator = np.random.default_rng(0)
    items = list({tuple(int(t) for t in generator.integers(2, 40, length)) for length in (1, 2, 3) for _ in range(300)})
    assert _walk(build_trie(items), 0, ()) == sorted((*item, EOS) for item in items)
