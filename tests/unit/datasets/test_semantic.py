"""Identifiers of codes: which items are alike in them, and that new items are on trained paths."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.datasets.clustering import Tree
from model.datasets.dataset import Dataset
from model.datasets.given_codes import index_with_codes
from model.datasets.indexing import index_items
from model.datasets.item_vectors import Weights, shared_directions
from model.datasets.semantic import SemanticOptions, index_semantically, last_codes
from tests.unit.bundle.refusals import SHARED, needs_shared, refused
from tests.unit.datasets.test_indexing import dataset_of

NUM_KINDS = 4
WIDTH = 12


def shop(num_items: int = 60, num_trained: int = 48, seed: int = 0) -> Dataset:
    """Item n is of the kind n % 4 and looks like it; users buy two of one kind after the other, trained items only."""
    random = np.random.default_rng(seed)
    looks = random.standard_normal((NUM_KINDS, WIDTH)) * 3
    histories = []
    for user in range(80):
        own = [n for n in range(num_trained) if n % NUM_KINDS == user % NUM_KINDS]
        histories.append([*random.choice(own, 6, replace=False).tolist()])
    histories += [[n, n, n] for n in range(num_trained)]  # the first of three is trained on
    dataset = dataset_of(histories, num_items)
    rows = [looks[n % NUM_KINDS] + 0.3 * random.standard_normal(WIDTH) for n in range(num_items)]
    features = ItemFeatures(dataset.catalog.item_ids, np.array(rows, dtype=np.float32))
    titles = [f"{('ball', 'doll', 'kite', 'game')[n % NUM_KINDS]} number{n}" for n in range(num_items)]
    table = dataset.catalog.table
    catalog = Catalog.from_table(table.set_column(table.column_names.index("title"), "title", [titles]), "items")
    return replace(dataset, catalog=catalog, features=features)


SHOP = shop()


def codes(dataset: Dataset) -> list[tuple[int, ...]]:
    assert dataset.codebook is not None
    found = [dataset.codebook.codes_of(index) for index in dataset.catalog.indices]
    return [each for each in found if each is not None]


WEIGHTS = [Weights(), Weights(0, 1, 0), Weights(0, 0, 1), Weights(1, 0.5, 0.5)]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("directions", [0, 3])
def test_items_that_are_alike_share_their_first_code(weights: Weights, directions: int) -> None:
    options = SemanticOptions(weights, directions, sizes=(NUM_KINDS, 2))
    indexed = index_semantically(SHOP, options)
    kinds: dict[int, Counter[int]] = defaultdict(Counter)
    for row, path in enumerate(codes(indexed.dataset)[:48]):
        kinds[row % NUM_KINDS][path[0]] += 1
    assert len({found.most_common(1)[0][0] for found in kinds.values()}) == NUM_KINDS
    assert all(found.most_common(1)[0][1] >= 11 for found in kinds.values())
    assert indexed.report.num_trained == 48


@pytest.mark.parametrize("sizes", [(4, 4), (8, 8), (3, 3, 3), (16,)])
def test_every_item_is_on_a_trained_path_and_no_two_have_one_identifier(sizes: tuple[int, ...]) -> None:
    indexed = index_semantically(SHOP, SemanticOptions(sizes=sizes))
    found, book = codes(indexed.dataset), indexed.dataset.codebook
    assert book is not None
    assert len(set(indexed.dataset.catalog.indices)) == len(found) == 60
    trained = {path[:-1] for path in found[:48]}
    assert {path[:-1] for path in found} == trained == set(map(tuple, book.seen.tolist()))


def test_new_items_get_the_path_that_their_picture_gives_them() -> None:
    indexed = index_semantically(SHOP, SemanticOptions(num_directions=3, sizes=(4, 2)))
    book, features = indexed.dataset.codebook, SHOP.features
    assert book is not None
    assert book.projection is not None
    assert features is not None
    positions = book.projection.positions(features.features)
    for row, path in enumerate(codes(indexed.dataset)):
        if row >= 48:
            assert tuple(book.seen[book.nearest_seen(positions[row])[0]]) == path[:-1]


def test_items_that_nobody_bought_are_placed_by_their_pictures_also_beside_purchases() -> None:
    found = codes(index_semantically(SHOP, SemanticOptions(Weights(1, 0, 3), sizes=(4, 2))).dataset)
    of_kind = [Counter(path[0] for path in found[kind:48:NUM_KINDS]).most_common(1)[0][0] for kind in range(NUM_KINDS)]
    assert [path[0] for path in found[48:]] == [of_kind[row % NUM_KINDS] for row in range(48, 60)]


def test_a_path_keeps_its_trained_items_when_new_ones_fill_it() -> None:
    """New items come first in the catalog here."""
    order = np.concatenate([np.arange(48, 60), np.arange(48)])
    place_of = np.argsort(order)
    features = SHOP.features
    assert features is not None
    catalog = Catalog.from_table(SHOP.catalog.table.take(order.tolist()), "items")
    dataset = replace(SHOP, catalog=catalog, sequences=replace(SHOP.sequences, items=place_of[SHOP.sequences.items]))
    indexed = index_semantically(dataset, SemanticOptions(sizes=(4, 12), num_last=2)).dataset
    assert indexed.codebook is not None
    assert {path[:-1] for path in codes(indexed)[12:]} == set(map(tuple, indexed.codebook.seen.tolist()))


def test_the_projection_of_pictures_alone_is_exact() -> None:
    """A trained item's own picture gives its own path."""
    indexed = index_semantically(SHOP, SemanticOptions(num_directions=2, sizes=(4, 4)))
    book, features = indexed.dataset.codebook, SHOP.features
    assert book is not None
    assert book.projection is not None
    assert features is not None
    for row, path in enumerate(codes(indexed.dataset)[:48]):
        left = book.projection.positions(features.features[row : row + 1])[0]
        for level, code in zip(book.levels, path, strict=False):
            assert ((level - left) ** 2).sum(axis=1).argmin() == code
            left = left - level[code]


def test_the_same_seed_gives_the_same_identifiers_and_another_one_others() -> None:
    options = SemanticOptions(num_directions=3, sizes=(4, 2))
    first, again = index_semantically(SHOP, options), index_semantically(SHOP, options)
    assert first.dataset.catalog.indices == again.dataset.catalog.indices
    assert first.report == again.report
    other = index_semantically(SHOP, replace(options, seed=1))
    assert other.dataset.catalog.indices != first.dataset.catalog.indices


def test_held_out_purchases_do_not_matter() -> None:
    changed = SHOP.sequences.items.copy()
    lasts = SHOP.sequences.offsets[1:] - 1
    changed[lasts], changed[lasts - 1] = 59, 58
    other = replace(SHOP, sequences=replace(SHOP.sequences, items=changed))
    options = SemanticOptions(Weights(1, 1, 1), 3, sizes=(4, 2))
    assert index_semantically(other, options).dataset.catalog.indices == (
        index_semantically(SHOP, options).dataset.catalog.indices
    )


def test_sizes_are_the_largest_with_which_held_out_items_land_on_trained_paths() -> None:
    report = index_semantically(SHOP, SemanticOptions()).report
    assert report.sizes[0] in {4, 8}
    assert report.held_out_on_seen is not None
    assert report.held_out_on_seen >= 0.85
    finer = index_semantically(SHOP, SemanticOptions(sizes=(32, 32))).report
    assert finer.held_out_on_seen is not None
    assert finer.held_out_on_seen < 0.85
    assert f"{finer.held_out_on_seen:.1%} of a held-out tenth of the items" in " ".join(finer.lines())


@pytest.mark.parametrize("num_last", [4, 5, 8])
def test_full_paths_send_items_to_the_nearest_one_with_room(num_last: int) -> None:
    options = SemanticOptions(sizes=(8, 4), num_last=num_last)
    indexed = index_semantically(SHOP, options)
    counts = Counter(path[:-1] for path in codes(indexed.dataset))
    assert max(counts.values()) <= num_last
    assert max(path[-1] for path in codes(indexed.dataset)) < num_last


def test_last_codes_are_by_lot() -> None:
    lasts = [path[-1] for path in codes(index_semantically(SHOP, SemanticOptions(sizes=(2, 2))).dataset)]
    assert lasts != sorted(lasts)
    assert len(set(lasts)) > 10


def test_other_methods_leave_no_codebook() -> None:
    indexed = index_semantically(SHOP, SemanticOptions(sizes=(4, 2))).dataset
    assert index_items(indexed, "random", Tree(4, 0)).codebook is None


def test_a_dataset_keeps_its_codebook(tmp_path: Path) -> None:
    indexed = index_semantically(SHOP, SemanticOptions(sizes=(4, 2))).dataset
    indexed.write(tmp_path)
    found = Dataset.read(tmp_path).codebook
    assert found is not None
    assert indexed.codebook is not None
    assert np.array_equal(found.seen, indexed.codebook.seen)
    assert np.array_equal(found.centres, indexed.codebook.centres)


def test_what_a_weight_needs_is_named() -> None:
    with refused("invalid_dataset", "has no picture embeddings; give a weight of 0 to pictures"):
        index_semantically(replace(SHOP, features=None), SemanticOptions())
    with refused("invalid_dataset", "all weights are 0"):
        index_semantically(SHOP, SemanticOptions(Weights(0, 0, 0)))
    untitled = dataset_of([[0, 1, 2, 3]], 4)
    with refused("invalid_dataset", "has no titles"):
        index_semantically(untitled, SemanticOptions(Weights(0, 1, 0)))
    with refused("invalid_dataset", "has no training purchase"):
        index_semantically(dataset_of([[0, 1]], 4), SemanticOptions())
    with refused("invalid_dataset", "do not fit on"):
        index_semantically(SHOP, SemanticOptions(sizes=(2,), num_last=3))


def test_shared_directions_are_those_in_which_pairs_agree() -> None:
    random = np.random.default_rng(0)
    shared, before, after = (
        random.standard_normal((400, 1)),
        random.standard_normal((400, 3)),
        random.standard_normal((400, 3)),
    )
    vectors = np.concatenate([np.hstack([shared, before]), np.hstack([shared, after])]).astype(np.float32)
    rows = np.arange(400)
    found = shared_directions(vectors, np.ones(800, np.bool_), rows, rows + 400, 2)
    assert found.correlations[0] > 0.9
    assert found.correlations[1] < 0.3
    direction = np.abs(found.directions[:, 0])
    assert direction[0] > 20 * direction[1:].max()
    assert ((vectors - found.mean) @ found.directions).std(axis=0) == pytest.approx([1, 1], abs=0.05)


CODES = {f"i{n}": [n // 3, 0, n % 3] for n in range(6)}


def test_ready_codes_become_identifiers(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps({"variants": {"a": CODES}}))
    dataset = index_with_codes(dataset_of([[0, 1, 2, 3, 5]], 6), path, "a", None)
    assert dataset.catalog.indices[4] == "101 102 104"
    assert codes(dataset)[4] == (1, 0, 1)
    assert dataset.codebook is not None
    assert dataset.codebook.seen.tolist() == [[0, 0]]
    assert dataset.codebook.projection is None


def test_codes_that_items_share_get_a_last_code_by_lot(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps({**CODES, "i5": [0, 0, 0]}))
    dataset = index_with_codes(dataset_of([[0, 1, 2, 3, 5]], 6), path, None, None)
    assert {len(each) for each in codes(dataset)} == {4}
    assert codes(dataset)[0][:-1] == codes(dataset)[5][:-1] == (0, 0, 0)
    assert len(set(dataset.catalog.indices)) == 6


@pytest.mark.parametrize(
    ("content", "variant", "message"),
    [
        ({"i0": [0, 1]}, None, "has no codes for 5 of 6 items, such as 'i1'"),
        ({**CODES, "i5": [0, 0]}, None, "every item must have a list of as many codes"),
        ({**CODES, "i5": [0, 0, -1]}, None, "codes must be 2 or more numbers"),
        (CODES, "a", "has no variants"),
        ({"variants": {"b": CODES}}, "a", "has the variants b, not 'a'"),
        ([[0, 0, 0]], None, "give --datamaps"),
        (3, None, "must map item ids to lists of codes"),
    ],
)
def test_codes_that_do_not_fit_are_refused(tmp_path: Path, content: object, variant: str | None, message: str) -> None:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps(content))
    with refused("invalid_dataset", message):
        index_with_codes(dataset_of([[0, 1, 2, 3, 5]], 6), path, variant, None)


@needs_shared
def test_the_published_codes_of_beauty_are_read() -> None:
    folder = SHARED / "data" / "amazon" / "beauty"

    numbers = json.loads(gzip.decompress((folder / "datamaps.json.gz").read_bytes()))["id2item"]
    rows = [{"item_id": item_id, "index": number} for number, item_id in numbers.items()]
    dataset = replace(dataset_of([[0, 1, 2, 3]], 4), catalog=Catalog.from_rows(rows))
    indexed = index_with_codes(dataset, folder / "semantic_ids.json.gz", "rkmeans_native", folder / "datamaps.json.gz")
    assert [path[:-1] for path in codes(indexed)[:2]] == [(171, 42, 207, 0), (171, 42, 207, 214)]
    assert len(set(indexed.catalog.indices)) == len(numbers)


def test_compact_last_codes_are_the_first_ones_in_an_order_by_lot() -> None:
    places = np.array([0, 1, 0, 0, 2, 1, 0])
    lasts = np.array(last_codes(places, 50, seed=1, compact=True))
    assert {place: sorted(lasts[places == place].tolist()) for place in range(3)} == {
        0: [0, 1, 2, 3],
        1: [0, 1],
        2: [0],
    }
    assert lasts.tolist() != last_codes(places, 50, seed=2, compact=True)
