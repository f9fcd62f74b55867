"""A folder as the original's loader reads it gives what that loader would have given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.datasets.dataset import Dataset
from model.datasets.faults import Faults
from model.datasets.vip5_folder import read_vip5_folder
from tests.unit.bundle.refusals import refused
from tests.unit.datasets.sources import (
    ASINS,
    SEQUENCES,
    TITLES,
    USERS,
    exp_record,
    save_pickle,
    vip5_folder,
    write_feature,
    write_lines,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return vip5_folder(tmp_path / "toys")


def read(folder: Path, faults: Faults | None = None) -> Dataset:
    return read_vip5_folder(folder, "toys", faults or Faults())


def numbers(dataset: Dataset, rows: np.ndarray) -> list[int]:
    """VIP5's item numbers of catalog rows."""
    return [int(dataset.catalog.indices[row]) for row in rows]


def test_a_whole_folder_is_read_without_a_fault(folder: Path) -> None:
    faults = Faults()
    dataset = read(folder, faults)
    assert faults.counts == {}
    assert (dataset.provenance.source, dataset.provenance.faults) == ("vip5", {})


def test_histories_and_targets_are_cut_as_in_the_original_loader(folder: Path) -> None:
    dataset = read(folder)
    for row, line in enumerate(SEQUENCES.values()):
        assert numbers(dataset, dataset.sequences.seen(row, "test")) == line[:-1]
        assert numbers(dataset, dataset.sequences.seen(row, "val")) == line[:-2]
        assert numbers(dataset, dataset.sequences.seen(row, "train")) == line[:-2]
        targets = np.array([dataset.sequences.target(row, "test"), dataset.sequences.target(row, "val")])
        assert numbers(dataset, targets) == [line[-1], line[-2]]


def test_items_are_called_by_their_number_and_known_by_their_asin(folder: Path) -> None:
    catalog = read(folder).catalog
    assert catalog.indices == tuple(map(str, ASINS))
    assert catalog.item_ids == tuple(ASINS.values())


def test_titles_are_those_of_the_metadata_and_missing_ones_none(folder: Path) -> None:
    catalog = read(folder).catalog
    assert catalog.titles == tuple(TITLES.get(number) for number in ASINS)
    assert catalog.images[2] == "http://pictures/3.jpg"
    attributes = catalog.attributes(0)
    assert attributes["category"] == "Games"
    assert attributes["categories"] == ("Toys & Games", "Games", "Card Games", "Puzzles")
    assert attributes["price"] == 1.5


def test_users_are_called_by_their_number_and_named_by_the_pickle_or_their_reviews(folder: Path) -> None:
    users = read(folder).users
    assert [(user.user_id, user.index, user.name) for user in users.search("", 0, 9)[0]] == [
        ("AAA", "1", "Ann Lee"),
        ("BBB", "2", "Bob"),
        ("CCC", "3", "Cleo"),
    ]


@pytest.mark.parametrize("key", [int, lambda number: USERS[number]], ids=["number", "own id"])
def test_names_may_be_kept_by_number_or_by_own_id(folder: Path, key: type[int]) -> None:
    save_pickle(folder / "user_id2name.pkl", {key(number): f"name {number}" for number in USERS})
    users = read(folder).users
    assert [user.name for user in users.search("", 0, 9)[0]] == ["name 1", "name 2", "name 3"]


def test_negative_samples_are_rows_of_their_user(folder: Path) -> None:
    dataset = read(folder)
    found = {user: numbers(dataset, rows) for user, rows in dataset.negatives.items()}
    assert found == {0: [6, 7, 8], 1: [3, 4, 5], 2: [1, 2, 4]}


def test_explanations_keep_their_split_and_other_reviews_are_added(folder: Path) -> None:
    dataset = read(folder)
    found = [
        (
            review.split,
            int(dataset.users.table["index"][review.user].as_py()),
            int(dataset.catalog.indices[review.item]),
            review.star_rating,
            review.feature,
            review.explanation,
        )
        for review in dataset.reviews
    ]
    assert found == [
        ("train", 1, 1, 4.0, "dice", "the dice are nice"),
        ("train", 2, 2, 4.0, None, None),
        ("val", 3, 8, 4.0, "box", "a fine box"),
        ("test", 1, 5, 4.0, "card", "good cards"),
        ("train", 2, 6, 2.0, None, None),
    ]
    assert dataset.reviews[0].headline == "headline of 1"


def test_features_of_all_split_folders_are_merged_in_the_catalogs_order(folder: Path) -> None:
    features = read(folder).features
    assert features is not None
    assert features.item_ids == (ASINS[1], ASINS[2], ASINS[5])
    assert features.features.dtype == np.float32
    assert features.features[:, 0].tolist() == [1, 2, 5]


def test_features_of_two_encoders_are_not_mixed(folder: Path) -> None:
    write_feature(folder / "features/rn50_features/train" / f"{ASINS[3]}.npy", 3)
    with refused("invalid_dataset", "features of several encoders (rn50_features, vitb32_features); choose one"):
        read(folder)
    dataset = read_vip5_folder(folder, "toys", Faults(), features=folder / "features/rn50_features")
    assert dataset.features is not None
    assert dataset.features.item_ids == (ASINS[3],)


def test_broken_features_are_counted_and_left_out(folder: Path) -> None:
    root = folder / "features/vitb32_features/train"
    (root / f"{ASINS[3]}.npy").write_bytes(b"nothing")
    write_feature(root / f"{ASINS[4]}.npy", float("nan"))
    write_feature(root / f"{ASINS[6]}.npy", 6, width=5)
    np.save(root / f"{ASINS[7]}.npy", np.ones((2, 4), np.float32))
    np.save(root / f"{ASINS[8]}.npy", np.ones(4, np.int64))
    write_feature(folder / "features/vitb32_features/val" / f"{ASINS[1]}.npy", 9)
    faults = Faults()
    dataset = read(folder, faults)
    assert dataset.features is not None
    assert dataset.features.item_ids == (ASINS[1], ASINS[2], ASINS[5])
    assert faults.counts == {
        "the file is not a readable array": 1,
        "the feature has values that are NaN or infinite": 1,
        "the feature has a different width than the others": 1,
        "the array is not one vector of floats": 2,
        "another folder has a different feature of the item": 1,
    }


def test_a_folder_needs_nothing_but_its_sequences(tmp_path: Path) -> None:
    write_lines(tmp_path / "sequential_data.txt.gz", ["7 3 1 2", "9 2 3"])
    dataset = read(tmp_path)
    assert dataset.catalog.item_ids == dataset.catalog.indices == ("1", "2", "3")
    assert [user.user_id for user in dataset.users.search("", 0, 9)[0]] == ["7", "9"]
    assert (dataset.reviews, dataset.negatives, dataset.features) == ((), {}, None)


def test_a_folder_without_sequences_is_refused(tmp_path: Path) -> None:
    with refused("invalid_dataset", "has no sequential_data.txt; give the folder of one domain"):
        read(tmp_path)


def test_broken_records_are_counted_and_named(folder: Path) -> None:
    train = [exp_record(1, 1), "text", {**exp_record(1, 1), "asin": "B999"}, {**exp_record(1, 1), "reviewerID": "Z"}]
    save_pickle(folder / "exp_splits.pkl", {"train": train, "val": [], "test": []})
    write_lines(folder / "negative_samples.txt", ["1 6 99", "8 1 2", "2 x", "3"])
    write_lines(folder / "meta.json.gz", ["{'asin': 'B00001', 'title': 'one'}", "{'asin': open('x')}", "{'a': 1}"])
    faults = Faults()
    dataset = read(folder, faults)
    assert faults.counts == dataset.provenance.faults == dict.fromkeys(faults.counts, 1)
    assert faults.places == {
        "the line is neither a JSON object nor a Python literal of one": ["meta.json.gz:2"],
        "the line has no asin": ["meta.json.gz:3"],
        "the record is not a dict": ["exp_splits.pkl:train[1]"],
        "the item of the review is unknown": ["exp_splits.pkl:train[2]"],
        "the user of the review has no interactions": ["exp_splits.pkl:train[3]"],
        "the line has a value that is not a number": ["negative_samples.txt:3"],
        "the line has a user and no item": ["negative_samples.txt:4"],
        "the user has no interactions": ["negative_samples.txt: user 8"],
        "the item is unknown": ["negative_samples.txt: user 1, item 99"],
    }
    assert dataset.catalog.titles[0] == "one"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("exp_splits.pkl", ["a"], "exp_splits.pkl must be a dict with the lists train, val, test"),
        ("exp_splits.pkl", {"train": [1], "val": [], "test": []}, "exp_splits.pkl has no valid record"),
        ("user_id2name.pkl", ["a"], "user_id2name.pkl is a list; it must be a dict"),
    ],
)
def test_a_pickle_of_another_form_is_refused(folder: Path, name: str, content: object, message: str) -> None:
    save_pickle(folder / name, content)
    with refused("invalid_dataset", message):
        read(folder)
