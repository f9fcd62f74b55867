"""A trie with one more identifier is the trie that is built of all of them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.trie import Trie
from model.decoding.trie_growth import with_identifier, with_leaf
from model.errors import CatalogError
from tests.unit.decoding.tables import EOS, Path, build_trie

ITEMS = st.lists(st.lists(st.integers(2, 6), min_size=1, max_size=4).map(tuple), min_size=2, max_size=25, unique=True)


def assert_same(one: Trie, other: Trie) -> None:
    for each in fields(Trie):
        a, b = getattr(one, each.name), getattr(other, each.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, each.name
            a, b = a.tolist(), b.tolist()
        assert a == b, each.name


@given(ITEMS, st.integers(1, 6))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_adding_identifiers_one_by_one_gives_the_trie_of_all(items: list[Path], num_added: int) -> None:
    first = max(1, len(items) - num_added)
    trie = build_trie(items[:first])
    leaves = trie.leaves_of_rows
    for row in range(first, len(items)):
        before = trie
        trie = with_identifier(trie, (*items[row], EOS), row)
        assert_same(before, build_trie(items[:row]))
        leaves = with_leaf(leaves, int(np.flatnonzero(trie.rows_of_leaves == row)[0]))
    assert_same(trie, build_trie(items))
    assert leaves.dtype == trie.leaves_of_rows.dtype
    assert leaves.tolist() == trie.leaves_of_rows.tolist()


@pytest.mark.parametrize("added", [(2,), (2, 3), (2, 3, 3), (2, 3, 5, 5, 5), (1 + 5,), (9, 9, 9, 9), (4, 3), (3,)])
def test_an_identifier_may_begin_or_go_on_like_another_or_be_deeper_than_all(added: Path) -> None:
    items: list[Path] = [(2, 3, 4), (2, 4), (4,), (5, 5)]
    assert_same(with_identifier(build_trie(items), (*added, EOS), 4), build_trie([*items, added]))


def test_an_identifier_that_is_there_is_refused() -> None:
    trie = build_trie([(2, 3), (4,)])
    with pytest.raises(CatalogError, match="must be unique"):
        with_identifier(trie, (4, EOS), 2)
    assert trie.has((4, EOS))
    assert trie.has((2, 3, EOS))
    assert not any(trie.has(tokens) for tokens in ((2, EOS), (4,), (), (9, EOS), (4, 2, EOS)))
