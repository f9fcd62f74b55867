"""Identifiers of new items: their path is the nearest with a free last code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.bundle.changes import CatalogChanges
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.new_items import items_without_index, require_embeddings, require_projection, with_indices
from tests.tiny import TINY_LAYOUT
from tests.unit.bundle.refusals import refused
from tests.unit.bundle.test_codebook import BOOK

Embedding = NDArray[np.float32]
NUM_PLACES = len(BOOK.seen) * BOOK.num_last


def embedding(seed: int) -> Embedding:
    return np.random.default_rng(seed).standard_normal(8).astype(np.float32)


def indices_of(item_ids: Sequence[str], seeds: Sequence[int], used: Sequence[str] = ()) -> list[str]:
    """What the rows of these items get, one change after another."""
    taken = set(used)
    for item_id, seed in zip(item_ids, seeds, strict=True):
        changes = CatalogChanges(added=({"item_id": item_id},))
        found = with_indices(changes, {item_id: embedding(seed)}, BOOK, taken.__contains__)
        taken.add(str(found.added[0]["index"]))
    return sorted(taken - set(used))


def path_and_last(index: object) -> tuple[tuple[int, ...], int]:
    codes = BOOK.codes_of(str(index))
    assert codes is not None
    return codes[:-1], codes[-1]


def nearest(seed: int) -> list[tuple[int, ...]]:
    assert BOOK.projection is not None
    order = BOOK.nearest_seen(BOOK.projection.positions(embedding(seed)[None])[0])
    return [tuple(path) for path in BOOK.seen[order].tolist()]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=NUM_PLACES), st.booleans())
def test_each_item_is_on_the_nearest_path_with_room_and_alone_there(seeds: list[int], at_once: bool) -> None:  # noqa: FBT001
    ids = [f"new-{number}" for number in range(len(seeds))]
    changes = CatalogChanges(added=tuple({"item_id": item_id, "title": "x"} for item_id in ids))
    embeddings = {item_id: embedding(seed) for item_id, seed in zip(ids, seeds, strict=True)}
    rows = with_indices(changes, embeddings, BOOK, lambda _: False).added
    assert [row["item_id"] for row in rows] == ids
    assert all(row["title"] == "x" for row in rows)
    indices = [str(row["index"]) for row in rows]
    assert len(set(indices)) == len(ids)
    num_on: dict[tuple[int, ...], int] = {}
    for index, seed in zip(indices, seeds, strict=True):
        path, _ = path_and_last(index)
        assert path == next(each for each in nearest(seed) if num_on.get(each, 0) < BOOK.num_last)
        num_on[path] = num_on.get(path, 0) + 1
    if at_once:
        assert indices_of(ids, seeds) == sorted(indices)  # one by one, they get the same


def test_an_item_that_comes_back_gets_its_identifier_again_while_it_is_free() -> None:
    (first,) = indices_of(["boat"], [1])
    assert indices_of(["boat"], [1]) == [first]
    (other,) = indices_of(["boat"], [1], used=[first])
    assert other != first
    assert path_and_last(other)[0] == path_and_last(first)[0]


def test_ids_decide_the_last_code() -> None:
    assert len({indices_of([f"item-{number}"], [1])[0] for number in range(40)}) > BOOK.num_last // 2


def test_a_full_path_sends_items_to_the_next_nearest_and_full_paths_none() -> None:
    one, two, three = nearest(3)
    everywhere = [BOOK.index_of(path, last) for path in (one, two, three) for last in range(BOOK.num_last)]
    (index,) = indices_of(["boat"], [3], used=everywhere[: BOOK.num_last])
    assert path_and_last(index)[0] == two
    (index,) = indices_of(["boat"], [3], used=everywhere[: 2 * BOOK.num_last])
    assert path_and_last(index)[0] == three
    with refused("invalid_catalog", "no path has a free last code for item 'boat': all 3 paths have 6 items"):
        indices_of(["boat"], [3], used=everywhere)


def test_rows_with_an_index_keep_it_and_nobody_else_gets_it() -> None:
    (index,) = indices_of(["boat"], [1])
    changes = CatalogChanges(added=({"item_id": "boat"}, {"item_id": "kite", "index": index}))
    assert items_without_index(changes) == ("boat",)
    rows = with_indices(changes, {"boat": embedding(1)}, BOOK, lambda _: False).added
    assert rows[1]["index"] == index != rows[0]["index"]


def test_an_embedding_of_another_width_is_refused() -> None:
    changes = CatalogChanges(added=({"item_id": "boat"},))
    with refused("invalid_input", "the embedding of 'boat' has width 3, the codebook takes 8"):
        with_indices(changes, {"boat": np.ones(3, np.float32)}, BOOK, lambda _: False)


def test_what_a_domain_lacks_is_named() -> None:
    changes = CatalogChanges(added=({"item_id": "kite", "index": "7"}, {"item_id": "boat", "index": None}))
    with refused("invalid_catalog", "row 2 has no index, and the domain 'toys' has no codebook"):
        require_projection(None, changes, "toys")
    with refused("invalid_catalog", "has a codebook that was made without picture embeddings"):
        require_projection(replace(BOOK, levels=(), projection=None), changes, "toys")
    assert require_projection(BOOK, changes, "toys") is BOOK


@pytest.mark.parametrize("shortfall", ["", "Redis did not answer"])
def test_a_missing_embedding_is_named_with_its_remedies(shortfall: str) -> None:
    spec = DomainSpec("toys", TINY_LAYOUT, "", encoder=ImageEncoder("vitb32", 8))
    require_embeddings(["boat"], {"boat": embedding(1)}, spec, "")
    with refused("invalid_input", "item 'kite' has neither an index nor an embedding"):
        require_embeddings(["boat", "kite"], {"boat": embedding(1)}, spec, shortfall)
    with refused(
        "invalid_input",
        f"{shortfall and f'({shortfall})'}; give its row feature, the embedding of its picture by vitb32",
    ):
        require_embeddings(["kite"], {}, spec, shortfall)
