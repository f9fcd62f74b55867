from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from model.datasets.dataset import Dataset, Review
from model.datasets.faults import Faults
from model.datasets.lines import LinesSource, read_lines
from tests.unit.bundle.refusals import refused
from tests.unit.datasets.sources import write_feature, write_json_lines, write_lines


def read(files: LinesSource, faults: Faults | None = None) -> Dataset:
    return read_lines(files, "shop", faults or Faults())


def histories(dataset: Dataset) -> dict[str, list[str]]:
    """Item ids by user id."""
    users: list[str] = dataset.users.table["user_id"].to_pylist()  # type: ignore[assignment]  # ids are never null
    return {
        user: [dataset.catalog.item_ids[item] for item in dataset.sequences.of(row)] for row, user in enumerate(users)
    }


def test_items_are_named_by_number_and_described_by_their_file(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "sequences.txt.gz", ["1 1 2 10", "2 2 3"])
    items = write_json_lines(
        tmp_path / "items.jsonl.gz",
        [
            {
                "item": 10,
                "asin": "TEN",
                "title": "Ten &amp; more",
                "categories": [["Toys", "Games &amp; Dice"], ["Toys"]],
            },
            {
                "item": 2,
                "item_id": "TWO",
                "title": " ",
                "categories": ["Toys", "Dolls", "Large"],
                "price": 3,
                "brand": "B",
            },
            {"item": 11, "asin": "ELEVEN", "category": "own", "image": "11.png", "price": "free"},
        ],
    )
    dataset = read(LinesSource(sequences, items))
    catalog = dataset.catalog
    assert catalog.indices == ("1", "2", "3", "10", "11")
    assert catalog.item_ids == ("1", "TWO", "3", "TEN", "ELEVEN")
    assert catalog.titles == (None, None, None, "Ten & more", None)
    assert catalog.images == (None, None, None, None, "11.png")
    assert catalog.attributes(3) == {
        "category": "Games & Dice",
        "categories": ("Toys", "Games & Dice"),
        "brand": None,
        "price": None,
    }
    assert catalog.attributes(1) == {
        "category": "Dolls",
        "categories": ("Toys", "Dolls", "Large"),
        "brand": "B",
        "price": 3.0,
    }
    assert catalog.attributes(4)["category"] == "own"
    assert histories(dataset) == {"1": ["1", "TWO", "TEN"], "2": ["TWO", "3"]}
    assert dataset.provenance.indexing == "given"


def test_number_maps_give_items_and_users_their_own_ids(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2", "2 3"])
    maps = tmp_path / "datamaps.json"
    maps.write_text(json.dumps({"item2id": {"A": 1, "B": "2", "C": 3, "D": 4}, "id2user": {"2": "bob"}}))
    dataset = read(LinesSource(sequences, datamaps=maps))
    assert dataset.catalog.item_ids == ("A", "B", "C", "D")
    assert histories(dataset) == {"1": ["A", "B"], "bob": ["C"]}
    assert dataset.provenance.indexing == "sequential"


def test_names_may_be_texts(tmp_path: Path) -> None:
    dataset = read(LinesSource(write_lines(tmp_path / "s.txt", ["ann B-2 A-1", "bob A-1\tC-3"])))
    assert dataset.catalog.item_ids == dataset.catalog.indices == ("B-2", "A-1", "C-3")
    assert histories(dataset) == {"ann": ["B-2", "A-1"], "bob": ["A-1", "C-3"]}


def test_broken_lines_are_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_bytes(b"1 1 2\n\n3\n1 7 8\n\xff\xfe 3\n5 2\n6\n7\n8\n")
    items = write_lines(
        tmp_path / "i.jsonl", ['{"item": 1}', "[1]", '{"title": "no name"}', '{"item": "1"}', '{"item": 2']
    )
    faults = Faults()
    dataset = read(LinesSource(path, items), faults)
    assert histories(dataset) == {"1": ["1", "2"], "5": ["2"]}
    assert faults.places == {
        "the line has a user and no item": ["s.txt:3", "s.txt:7", "s.txt:8"],
        "the user is listed twice": ["s.txt:4"],
        "the line is not UTF-8": ["s.txt:5"],
        "the line is neither a JSON object nor a Python literal of one": ["i.jsonl:2", "i.jsonl:5"],
        "the line has neither item nor item_id nor asin": ["i.jsonl:3"],
        "the item is listed twice": ["i.jsonl:4"],
    }
    assert dataset.provenance.faults == faults.counts
    assert faults.counts["the line has a user and no item"] == 4
    assert faults.descriptions()[0] == ("4 left out: the line has a user and no item (s.txt:3, s.txt:7, s.txt:8, …)")


def test_digits_are_texts_with_their_leading_zeros(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["01 0108775015 0108775044", "1 007 7 0108775015"])
    items = write_json_lines(
        tmp_path / "i.jsonl", [{"item_id": "0108775015", "title": "vest"}, {"item_id": "007", "title": "bond"}]
    )
    dataset = read(LinesSource(sequences, items, negatives=write_lines(tmp_path / "n.txt", ["01 007", "1 0108775044"])))
    assert dataset.catalog.item_ids == dataset.catalog.indices == ("7", "007", "0108775015", "0108775044")
    assert dataset.catalog.titles == (None, "bond", "vest", None)
    assert histories(dataset) == {"01": ["0108775015", "0108775044"], "1": ["007", "7", "0108775015"]}
    assert {user: rows.tolist() for user, rows in dataset.negatives.items()} == {0: [1], 1: [3]}


def test_a_first_line_of_digits_says_nothing_about_the_other_ids(tmp_path: Path) -> None:
    dataset = read(LinesSource(write_lines(tmp_path / "s.txt", ["1 1439023483 439023483", "ann B00A 1439023483"])))
    assert histories(dataset) == {"1": ["1439023483", "439023483"], "ann": ["B00A", "1439023483"]}


def test_numbers_of_json_are_canonical_texts(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 0 7 8"])
    items = write_json_lines(
        tmp_path / "i.jsonl", [{"item_id": 0, "title": "a"}, {"item": 7.0, "asin": "S"}, {"item": 8.5, "title": "x"}]
    )
    explanations = write_json_lines(tmp_path / "e.jsonl", [{"user": 1.0, "item": 7.0, "explanation": "fine"}])
    faults = Faults()
    dataset = read(LinesSource(sequences, items, explanations=(explanations,)), faults)
    assert dataset.catalog.item_ids == ("0", "S", "8")
    assert dataset.catalog.titles == ("a", None, None)
    assert [review.item for review in dataset.reviews] == [1]
    assert faults.places == {"item is not an id": ["i.jsonl:3: 8.5"]}


def test_a_number_that_may_have_lost_its_zeros_is_refused_naming_both(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 007 8"])
    items = write_json_lines(tmp_path / "i.jsonl", [{"item_id": 8}, {"item_id": 7}])
    with refused("invalid_dataset", "i.jsonl:2: the id 7 is stored as a number and may stand for '007'"):
        read(LinesSource(sequences, items))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"item2id": {"A": 1, "B": "1"}}, "m.json: item2id gives number 1 to 'A' and to 'B'"),
        ({"id2item": {"1": "A", "01": "A"}}, "m.json: id2item gives 'A' the numbers 1 and 01"),
        ({"id2user": {"1": None}}, "m.json: id2user maps '1' to None"),
    ],
)
def test_number_maps_with_two_partners_are_refused(tmp_path: Path, maps: dict[str, object], message: str) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2"])
    (tmp_path / "m.json").write_text(json.dumps(maps))
    with refused("invalid_dataset", message):
        read(LinesSource(sequences, datamaps=tmp_path / "m.json"))


def test_explanations_take_their_split_from_record_name_or_place(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2 3 4", "2 4 3 2 1"])
    named = write_json_lines(
        tmp_path / "explanations.val.jsonl",
        [
            {"user": 1, "item": 4, "feature": "dice", "explanation": " nice &amp; dicey "},
            {"user": 1, "item": 3, "explanation": "in train", "split": "train"},
        ],
    )
    unnamed = write_json_lines(
        tmp_path / "more.jsonl",
        [
            {"user": "2", "item": "1", "explanation": "last", "star_rating": 5, "headline": "top"},
            {"user": 2, "item": 2, "explanation": "last but one"},
            {"user": 2, "item": 4, "explanation": "before"},
            {"user": 2, "item": 4, "feature": "x"},
            {"user": 9, "item": 4, "explanation": "who"},
            {"user": 2, "item": 9, "explanation": "what"},
        ],
    )
    faults = Faults()
    dataset = read(LinesSource(sequences, explanations=(named, unnamed)), faults)
    assert dataset.reviews == (
        Review(0, 3, "val", None, None, "dice", "nice &amp; dicey"),
        Review(0, 2, "train", None, None, None, "in train"),
        Review(1, 0, "test", 5.0, "top", None, "last"),
        Review(1, 1, "val", None, None, None, "last but one"),
        Review(1, 3, "train", None, None, None, "before"),
    )
    assert faults.places == {
        "the line has no explanation": ["more.jsonl:4"],
        "the user of the review has no interactions": ["more.jsonl:5"],
        "the item of the review is unknown": ["more.jsonl:6"],
    }


def test_negatives_and_features_are_those_of_known_items(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2", "2 3"])
    write_feature(tmp_path / "features/2.npy", 2)
    write_feature(tmp_path / "features/77.npy", 2)
    files = LinesSource(
        sequences, negatives=write_lines(tmp_path / "n.txt", ["2 1 2 9"]), features=tmp_path / "features"
    )
    dataset = read(files)
    assert {user: rows.tolist() for user, rows in dataset.negatives.items()} == {1: [0, 1]}
    assert dataset.features is not None
    assert dataset.features.item_ids == ("2",)


def test_what_is_read_comes_back_from_disk(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2 3", "2 3"])
    explanations = write_json_lines(tmp_path / "e.jsonl", [{"user": 1, "item": 1, "explanation": "fine"}])
    dataset = read(LinesSource(sequences, explanations=(explanations,)))
    dataset.write(tmp_path / "dataset")
    again = Dataset.read(tmp_path / "dataset")
    assert again.catalog.table.equals(dataset.counted_catalog.table)
    assert again.users.table.equals(dataset.users.table)
    assert again.reviews == dataset.reviews
    assert again.provenance == dataset.provenance
    assert np.array_equal(again.sequences.items, dataset.sequences.items)
    assert np.array_equal(again.sequences.offsets, dataset.sequences.offsets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\n2\n", "all 2 lines are broken; the file must have lines `user item item"),
        (b"", "s.txt is empty; it must have lines `user item item"),
        (gzip.compress(b"1 2 3\n" * 4000)[:-9], "cannot be read to the end"),
        (b"1 2 3\n", "cannot be read to the end: Not a gzipped file"),
    ],
    ids=["broken", "empty", "cut", "not gzip"],
)
def test_a_file_without_a_good_line_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / ("s.txt.gz" if "to the end" in message else "s.txt")
    path.write_bytes(content)
    with refused("invalid_dataset", message):
        read(LinesSource(path))


def test_two_items_of_one_id_are_refused(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2"])
    items = write_json_lines(tmp_path / "i.jsonl", [{"item": 1, "asin": "A"}, {"item": 2, "asin": "A"}])
    with refused("invalid_catalog", "item_id 'A' occurs in 2 rows"):
        read(LinesSource(sequences, items))


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_number_maps_that_are_none_are_refused(tmp_path: Path, content: bytes) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2"])
    (tmp_path / "m.json").write_bytes(content)
    with refused("invalid_dataset", "m.json "):
        read(LinesSource(sequences, datamaps=tmp_path / "m.json"))


def test_reading_reports_how_far_it_is(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.txt.gz", (f"{user} 1 2 {user}" for user in range(1, 3001)))
    seen: list[tuple[str, int, int | None]] = []
    read_lines(LinesSource(path), "shop", Faults(), lambda *step: seen.append(step))
    assert [what for what, _, _ in seen] == ["reading s.txt.gz"] * 3
    assert seen[-1][1] <= path.stat().st_size == seen[-1][2]


def test_the_real_lines_are_read_without_a_fault(shared: Path) -> None:
    folder = shared / "data" / "amazon" / "toys"
    files = LinesSource(
        folder / "sequential_data.txt.gz",
        folder / "items.jsonl.gz",
        folder / "datamaps.json.gz",
        tuple(folder / f"explanations.{split}.jsonl" for split in ("train", "val", "test")),
    )
    faults = Faults()
    dataset = read(files, faults)
    assert (len(dataset.users), len(dataset.catalog), faults.counts) == (19412, 11924, {})
    assert Counter(review.split for review in dataset.reviews) == {"train": 159, "val": 82, "test": 79}
    assert dataset.provenance.indexing == "sequential"
    assert not any("&amp;" in title for title in dataset.catalog.titles if title)


def test_half_a_letter_is_a_fault_of_its_field(tmp_path: Path) -> None:
    faults = Faults()
    items = write_json_lines(tmp_path / "i.jsonl", [{"item": "a", "title": "cut \ud83d", "brand": "B"}])
    dataset = read(LinesSource(write_lines(tmp_path / "s.txt", ["ann a b"]), items), faults)
    assert faults.places == {"title is not a text": ["i.jsonl:1: 'cut \\ud83d'"]}
    assert dataset.catalog.table["brand"].to_pylist() == ["B", None]


def test_an_item_whose_name_is_no_id_is_named_with_its_value(tmp_path: Path) -> None:
    faults = Faults()
    items = write_json_lines(tmp_path / "i.jsonl", [{"item": "a"}, {"item_id": True}, {"title": "none"}])
    read(LinesSource(write_lines(tmp_path / "s.txt", ["ann a b"]), items), faults)
    assert faults.places == {
        "item_id is not an id": ["i.jsonl:2: True"],
        "the line has neither item nor item_id nor asin": ["i.jsonl:3"],
    }


def test_number_maps_say_what_did_not_meet_on_both_sides(tmp_path: Path) -> None:
    faults = Faults()
    maps = {"id2item": {"e\u0301": "E", "9": "NINE"}, "id2user": {"1": "ann", "8": "bob"}}
    (tmp_path / "maps.json").write_text(json.dumps(maps))
    sequences = write_lines(tmp_path / "s.txt", ["1 \u00e9 2", "2 2 \u00e9"])
    dataset = read(LinesSource(sequences, datamaps=tmp_path / "maps.json"), faults)
    assert histories(dataset) == {"ann": ["E", "2"], "2": ["2", "E"]}
    assert faults.notices == [
        "1 of 2 items have an id in maps.json, 1 does not: '2'; 1 id matches no sequence: '9'",
        "1 of 2 users have an id in maps.json, 1 does not: '2'; 1 id matches no sequence: '8'",
    ]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"id2item": {"x": "A"}}, "maps.json has no id of any of the items: it has 'x', and the items are named like"),
        ({"id2user": {"x": "A"}, "id2item": {"1": "A"}}, "maps.json has no id of any of the users: it has 'x'"),
        ({"id2item": ["A"], "id2user": {"1": "x"}}, r"maps.json: id2item is ['A']; it must map numbers to ids"),
    ],
)
def test_number_maps_of_other_data_are_refused(tmp_path: Path, maps: dict[str, object], message: str) -> None:
    (tmp_path / "maps.json").write_text(json.dumps(maps))
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2"])
    with refused("invalid_dataset", message):
        read(LinesSource(sequences, datamaps=tmp_path / "maps.json"))
