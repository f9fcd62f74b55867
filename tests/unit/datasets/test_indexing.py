from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.bundle.catalog import TRAINING_INTERACTIONS, Catalog
from model.bundle.users import Users
from model.datasets.clustering import ItemPath, Tree, item_paths
from model.datasets.dataset import Dataset, Provenance, Sequences
from model.datasets.indexing import give_indices, index_items
from model.progress import no_progress
from tests.unit.bundle.refusals import refused
from tests.unit.datasets.sources import write_lines

TREE = Tree(branching=4, seed=0)


def dataset_of(histories: Sequence[Sequence[int]], num_items: int, categories: Sequence[str | None] = ()) -> Dataset:
    """Items i0, i1, …, called x0, x1, …"""
    rows = [{"item_id": f"i{row}", "index": f"x{row}"} for row in range(num_items)]
    if categories:
        rows = [{**row, "category": category} for row, category in zip(rows, categories, strict=True)]  # type: ignore[dict-item]  # a category may be None
    lengths = [len(history) for history in histories]
    return Dataset(
        provenance=Provenance("shop", "test", "given"),
        catalog=Catalog.from_rows(rows),
        users=Users.from_rows({"user_id": f"u{row}", "index": str(row)} for row in range(len(histories))),
        sequences=Sequences(
            np.array([item for history in histories for item in history], dtype=np.int64),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ),
    )


def two_worlds(num_users: int = 60, size: int = 12) -> Dataset:
    """Even users have even items, odd users odd ones, but the last two of each user are of the other world."""
    rng = np.random.default_rng(5)
    histories = []
    for user in range(num_users):
        own = rng.permutation(size)[:6] * 2 + user % 2
        others = rng.permutation(size)[:2] * 2 + 1 - user % 2
        histories.append([*own.tolist(), *others.tolist()])
    return dataset_of(histories, 2 * size)


def paths_of(dataset: Dataset) -> list[ItemPath]:
    return [tuple(map(int, index.split(" "))) for index in dataset.catalog.indices]


def test_sequential_numbers_count_first_appearances_user_by_user() -> None:
    indexed = index_items(dataset_of([[4, 2, 4], [0, 2, 1]], 6), "sequential", TREE)
    assert indexed.catalog.indices == ("3", "4", "2", "5", "1", "6")
    assert indexed.provenance.indexing == "sequential"


def test_a_written_dataset_counts_what_training_sees_of_each_item_and_no_target(tmp_path: Path) -> None:
    dataset = dataset_of([[0, 0, 1, 3, 2], [0, 2, 3], [1, 4], [4], []], 6)
    assert dataset.sequences.training_counts(6).tolist() == [3, 1, 0, 0, 0, 0]
    dataset.write(tmp_path)
    read = Dataset.read(tmp_path)
    assert read.catalog.table.column(TRAINING_INTERACTIONS).to_pylist() == [3, 1, 0, 0, 0, 0]
    assert index_items(read, "random", TREE).counted_catalog.table.column(TRAINING_INTERACTIONS).to_pylist()[0] == 3


def test_indexing_changes_nothing_but_the_identifiers() -> None:
    dataset = dataset_of([[0, 1, 2]], 4, ["a", None, "b", "b"])
    indexed = index_items(dataset, "random", TREE)
    assert indexed.catalog.table.drop_columns("index").equals(dataset.catalog.table.drop_columns("index"))
    assert indexed.catalog.table.column_names == dataset.catalog.table.column_names
    assert (indexed.sequences, indexed.users) == (dataset.sequences, dataset.users)


def test_random_numbers_are_a_permutation_that_the_seed_decides() -> None:
    dataset = dataset_of([[0, 1, 2]], 50)
    first, again, other = (index_items(dataset, "random", Tree(4, seed)).catalog.indices for seed in (1, 1, 2))
    assert sorted(first, key=int) == [str(number) for number in range(1, 51)]
    assert first == again
    assert first != other


def test_collaborative_identifiers_put_items_of_the_same_users_together() -> None:
    paths = paths_of(index_items(two_worlds(), "collaborative", TREE))
    worlds = defaultdict(set)
    for item, path in enumerate(paths):
        worlds[path[0]].add(item % 2)
    assert all(len(found) == 1 for found in worlds.values())


def test_collaborative_identifiers_know_nothing_of_held_out_items() -> None:
    dataset = two_worlds()
    items = dataset.sequences.items.copy()
    held_out = np.concatenate([dataset.sequences.offsets[1:] - 1, dataset.sequences.offsets[1:] - 2])
    items[held_out] = 0
    blind = Dataset(dataset.provenance, dataset.catalog, dataset.users, Sequences(items, dataset.sequences.offsets))
    first, second = (index_items(one, "collaborative", TREE).catalog.indices for one in (dataset, blind))
    assert first == second


def test_the_same_seed_gives_the_same_collaborative_identifiers() -> None:
    first, again, other = (
        index_items(two_worlds(), "collaborative", Tree(4, seed)).catalog.indices for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_neighbours_in_the_catalog_are_not_neighbours_in_number() -> None:
    """Catalog order is the order of first appearance, which tells what comes next."""
    dataset = dataset_of([list(range(100))], 100)
    paths = paths_of(index_items(dataset, "collaborative", Tree(100, 0)))
    followed = sum(second[0] == first[0] + 1 for first, second in pairwise(paths))
    assert followed < 10


def test_unseen_items_lie_with_their_category() -> None:
    dataset = two_worlds()
    categories = [("even", "odd")[item % 2] for item in range(24)]
    paths = item_paths(
        [dataset.sequences.seen(user, "train") for user in range(len(dataset.sequences))],
        [*categories, "even", "odd", "even", "odd", None],
        TREE,
        no_progress,
    )
    nodes = defaultdict(set)
    for path, category in zip(paths[:26], [*categories, "even", "odd"], strict=True):
        nodes[path[0]].add(category)
    assert all(len(found) == 1 for found in nodes.values())


@settings(max_examples=25, deadline=None)
@given(
    num_items=st.integers(1, 90),
    branching=st.integers(2, 7),
    num_users=st.integers(0, 12),
    seed=st.integers(0, 3),
)
def test_every_item_has_a_path_of_its_own_in_a_bounded_tree(
    num_items: int, branching: int, num_users: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, num_items, rng.integers(0, 9)) for _ in range(num_users)]
    tree = Tree(branching, seed)
    paths = item_paths(histories, [None] * num_items, tree, no_progress)
    assert len(set(paths)) == num_items
    assert {len(path) for path in paths} == {tree.depth(num_items)}
    assert all(1 <= number <= branching for path in paths for number in path)


def test_progress_ends_when_all_items_have_their_place() -> None:
    steps: list[tuple[str, int, int | None]] = []
    index_items(two_worlds(), "collaborative", TREE, lambda *step: steps.append(step))
    assert steps[-1] == ("clustering items", 24, 24)


def test_given_identifiers_are_taken_from_the_file(tmp_path: Path) -> None:
    dataset = dataset_of([[0, 1, 2]], 3)
    path = write_lines(tmp_path / "ids.tsv.gz", ["i2\tred  toy", "i0\tblue toy", "i1\t7"])
    indexed = give_indices(dataset, path)
    assert indexed.catalog.indices == ("blue toy", "7", "red toy")
    assert indexed.provenance.indexing == "given"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["i0\ta", "i1\tb"], "ids.tsv has no index for 1 of 3 items, such as 'i2'"),
        (["i0\ta", "i1\tb", "i2\tc", "i3\td"], "ids.tsv has 1 items that are not in the dataset, such as 'i3'"),
        (["i0\ta", "i1 b"], "ids.tsv:2: 'i1 b' is not item_id<TAB>index; write both"),
        (["i0\ta", "i1\t"], "ids.tsv:2: 'i1' is not item_id<TAB>index; write both"),
        (["i0\ta", "i0\tb"], "ids.tsv:2: item 'i0' is listed twice; give it one index"),
        (["i0\ta b", "i1\ta  b", "i2\tc"], "'i0' and 'i1' have the same index 'a b'; give each item its own"),
    ],
)
def test_given_identifiers_that_break_a_rule_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_lines(tmp_path / "ids.tsv", lines)
    with refused("invalid_dataset", message):
        give_indices(dataset_of([[0, 1, 2]], 3), path)


def test_given_identifiers_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "ids.tsv"
    path.write_bytes(b"i0\ta\n\xff\tb\n")
    with refused("invalid_dataset", "the line is not UTF-8 (ids.tsv:2); save it as UTF-8"):
        give_indices(dataset_of([[0, 1]], 2), path)
