"""Values of every type: read, missing, or counted and named."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from model.datasets.amazon_raw import RawSource, read_amazon_raw
from model.datasets.dataset import Dataset
from model.datasets.faults import Faults
from model.datasets.ids import id_text
from model.datasets.lines import LinesSource, read_lines
from model.datasets.values import Fields, UnreadableError, number_of, text_of
from model.datasets.vip5_folder import read_vip5_folder
from tests.unit.bundle.refusals import refused
from tests.unit.datasets.sources import exp_record, save_pickle, vip5_folder, write_json_lines, write_lines


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (2.5, 2.5),
        (np.int64(4), 4.0),
        (np.float32(4.5), 4.5),
        (np.array(4.0), 4.0),
        (np.array([4]), 4.0),
        (Decimal("3.50"), 3.5),
        ([5], 5.0),
        ("4.0", 4.0),
        (" 4 ", 4.0),
        (b"4.0", 4.0),
        (np.str_("4"), 4.0),
        ("1e3", 1000.0),
        ("$4.99", 4.99),
        ("4,99 €", 4.99),
        ("4,99\u00a0€", 4.99),
        ("USD 12", 12.0),
        ("-4,5", -4.5),
        ("$1,234", 1234.0),
        ("1,234.56", 1234.56),
        ("1.234,56", 1234.56),
        ("1 234,56 €", 1234.56),
        ("1'234.50 CHF", 1234.5),
        ("1,234,567", 1234567.0),
        ("0,999", 0.999),
        ("1234,567", 1234.567),
    ],
)
def test_a_value_of_one_number_is_read(value: object, number: float) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize("value", [None, "", "  ", [], (), np.array([]), b""])
def test_an_empty_value_is_missing(value: object) -> None:
    assert number_of(value) is None
    assert text_of(value) is None
    assert id_text(value) is None


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(1),
        float("nan"),
        np.float64("inf"),
        Decimal("NaN"),
        Decimal("sNaN"),
        10**400,
        1j,
        "free",
        "nan",
        "inf",
        "1,234",
        "1.234 €",
        "3.99 - 9.99",
        "1_000",
        "12%",
        "4/5",
        "$4€",
        "1,23,456",
        [1, 2],
        {"value": 3},
        b"\xff",
        date(2021, 1, 1),
        datetime(2021, 1, 1, tzinfo=UTC),
        np.datetime64("2021-01-01"),
    ],
    ids=repr,
)
def test_a_value_of_no_number_or_of_two_is_unreadable(value: object) -> None:
    with pytest.raises(UnreadableError):
        number_of(value)


@pytest.mark.parametrize(
    ("value", "text"), [(" a ", "a"), (1984, "1984"), (7.0, "7"), (7.5, "7.5"), (b"caf\xc3\xa9", "café"), (["a"], "a")]
)
def test_a_value_of_one_text_is_read(value: object, text: str) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("value", [True, float("nan"), ["a", "b"], {"a": 1}, date(2021, 1, 1), b"\xff"], ids=repr)
def test_a_value_of_no_text_is_unreadable(value: object) -> None:
    with pytest.raises(UnreadableError):
        text_of(value)


@pytest.mark.parametrize(
    ("value", "own"),
    [
        (np.int64(7), "7"),
        (Decimal(7), "7"),
        (Decimal("7.00"), "7"),
        (b"007", "007"),
        (np.str_("007"), "007"),
        (["7"], "7"),
    ],
)
def test_ids_of_other_types_are_texts(value: object, own: str) -> None:
    assert id_text(value) == own


@pytest.mark.parametrize("value", [True, 7.5, Decimal("7.5"), Decimal("NaN"), float("nan"), {}, ["a", "b"]], ids=repr)
def test_values_that_are_no_ids_are_none(value: object) -> None:
    assert id_text(value) is None


def test_the_first_field_that_can_be_read_counts_and_the_others_are_named() -> None:
    faults = Faults()
    fields = Fields({"a": "x", "b": "4", "c": None}, faults, "i.jsonl:7")
    assert (fields.number("a", "b"), fields.number("c", "d")) == (4.0, None)
    assert faults.descriptions() == ["1 left out: a is not a number (i.jsonl:7: 'x')"]


STRANGE: Mapping[str, object] = {"price": "$4.99", "title": 1984, "brand": ["Ours"], "image": ["a.jpg", "b.jpg"]}
BROKEN: Mapping[str, object] = {
    "price": "3 or 4",
    "title": {"en": "x"},
    "brand": True,
    "image": 5,
    "categories": "Toys",
}


def check_items(dataset: Dataset, faults: Faults, rows: tuple[int, int], place: str) -> None:
    """The strange item is read, and each value of the broken one is counted by its field, with its place."""
    read, broken = rows
    assert dataset.catalog.attributes(read)["price"] == 4.99
    assert dataset.catalog.attributes(read)["brand"] == "Ours"
    assert (dataset.catalog.titles[read], dataset.catalog.images[read]) == ("1984", "a.jpg")
    assert dataset.catalog.attributes(broken)["price"] is None
    assert faults.places == {
        "title is not a text": [f"{place}: {{'en': 'x'}}"],
        "brand is not a text": [f"{place}: True"],
        "categories is not a list": [f"{place}: 'Toys'"],
        "price is not a number": [f"{place}: '3 or 4'"],
    }
    assert dataset.provenance.faults == dict.fromkeys(faults.places, 1)


def test_values_of_described_items_are_read_or_named(tmp_path: Path) -> None:
    items = write_json_lines(tmp_path / "i.jsonl", [{"item_id": "1", **STRANGE}, {"item_id": "2", **BROKEN}])
    faults = Faults()
    dataset = read_lines(LinesSource(write_lines(tmp_path / "s.txt", ["u 1 2"]), items), "shop", faults)
    check_items(dataset, faults, (0, 1), "i.jsonl:2")


@pytest.mark.parametrize("form", [repr, None], ids=["literals", "json"])
def test_values_of_amazons_metadata_are_read_or_named(tmp_path: Path, form: object) -> None:
    reviews = write_json_lines(
        tmp_path / "r.json",
        [{"reviewerID": "U", "asin": item, "unixReviewTime": str(n), "overall": "4,5"} for n, item in enumerate("AB")],
    )
    records = [{"asin": "A", **STRANGE}, {"asin": "B", **BROKEN}]
    path = tmp_path / "m.json"
    metadata = write_lines(path, map(repr, records)) if form else write_json_lines(path, records)
    faults = Faults()
    dataset = read_amazon_raw(RawSource(reviews, metadata, core=1), "toys", faults)
    check_items(dataset, faults, (0, 1), "m.json:2")
    assert [review.star_rating for review in dataset.reviews] == [4.5, 4.5]


@pytest.mark.parametrize("rating", [np.int64(4), np.float32(4), np.array(4), "4.0", "4,0", [4], b"4"], ids=repr)
def test_ratings_of_pickles_are_read_whatever_their_type(tmp_path: Path, rating: object) -> None:
    folder = vip5_folder(tmp_path / "toys")
    save_pickle(folder / "review_splits.pkl", {"train": [], "val": [], "test": []})
    save_pickle(folder / "exp_splits.pkl", {"train": [exp_record(1, 1, overall=rating)], "val": [], "test": []})
    faults = Faults()
    dataset = read_vip5_folder(folder, "toys", faults)
    assert [review.star_rating for review in dataset.reviews] == [4.0]
    assert faults.counts == {}


def test_values_of_pickles_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = vip5_folder(tmp_path / "toys")
    save_pickle(folder / "review_splits.pkl", {"train": [], "val": [], "test": []})
    broken = [exp_record(1, 1, overall=True, summary={"a": 1}), exp_record(1, 2, overall=float("nan"), feature=[1, 2])]
    save_pickle(folder / "exp_splits.pkl", {"train": broken, "val": [], "test": []})
    save_pickle(folder / "user_id2name.pkl", {1: np.str_("Ann"), "2": None, "3": ["a", "b"]})
    faults = Faults()
    dataset = read_vip5_folder(folder, "toys", faults)
    assert [user.name for user in dataset.users.search("", 0, 9)[0]] == ["Ann", None, None]
    assert faults.places == {
        "overall is not a number": ["exp_splits.pkl:train[0]: True", "exp_splits.pkl:train[1]: nan"],
        "summary is not a text": ["exp_splits.pkl:train[0]: {'a': 1}"],
        "feature is not a text": ["exp_splits.pkl:train[1]: [1, 2]"],
        "name is not a text": ["user_id2name.pkl: user '3': ['a', 'b']"],
    }


def test_a_split_of_another_name_is_counted_and_the_place_decides(tmp_path: Path) -> None:
    explanations = write_json_lines(
        tmp_path / "e.jsonl", [{"user": "u", "item": "3", "explanation": "fine", "split": "validation"}]
    )
    faults = Faults()
    sequences = write_lines(tmp_path / "s.txt", ["u 1 2 3"])
    dataset = read_lines(LinesSource(sequences, explanations=(explanations,)), "shop", faults)
    assert [review.split for review in dataset.reviews] == ["test"]
    assert faults.places == {"split is not one of train, val, test": ["e.jsonl:1: 'validation'"]}


def test_explanations_and_negatives_meet_names_that_look_alike(tmp_path: Path) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["ann caf\u00e9 b", "jos\u00e9 b caf\u00e9"])
    records = [{"user": " jose\u0301 ", "item": "cafe\u0301\ufeff", "explanation": "fine"}]
    explanations = write_json_lines(tmp_path / "e.jsonl", records)
    negatives = write_lines(tmp_path / "n.txt", ["jose\u0301 cafe\u0301 b"])
    faults = Faults()
    files = LinesSource(sequences, explanations=(explanations,), negatives=negatives)
    dataset = read_lines(files, "shop", faults)
    assert [(review.user, review.item) for review in dataset.reviews] == [(1, 0)]
    assert {user: rows.tolist() for user, rows in dataset.negatives.items()} == {1: [0, 1]}
    assert faults.counts == {}


def test_explanations_may_name_users_and_items_by_their_own_ids(tmp_path: Path) -> None:
    maps = tmp_path / "m.json"
    maps.write_text('{"id2item": {"1": "A", "2": "B"}, "id2user": {"1": "ann"}}')
    records: list[dict[str, object]] = [
        {"user": "ann", "item": "B", "explanation": "fine"},
        {"user": 1, "item": 1, "explanation": "good"},
    ]
    explanations = write_json_lines(tmp_path / "e.jsonl", records)
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2"])
    dataset = read_lines(LinesSource(sequences, datamaps=maps, explanations=(explanations,)), "shop", Faults())
    assert [(review.user, review.item) for review in dataset.reviews] == [(0, 1), (0, 0)]


@pytest.mark.parametrize(
    ("option", "lines", "message"),
    [
        ("explanations", ['{"user": "x", "item": "1", "explanation": "a"}'], "e.txt has no line with a known user"),
        ("explanations", ['{"user": "u", "item": "1", "review": "a"}'], "'review' may be meant for 'explanation'"),
        ("negatives", ["x 1 2"], "e.txt: all 1 lines are broken; the file must have lines `user item item …` of known"),
        ("negatives", ["u 8 9"], "e.txt: all 1 lines are broken; the file must have lines `user item item …` of known"),
    ],
)
def test_files_beside_the_sequences_without_a_good_line_are_refused(
    tmp_path: Path, option: str, lines: list[str], message: str
) -> None:
    sequences, path = write_lines(tmp_path / "s.txt", ["u 1 2 3"]), write_lines(tmp_path / "e.txt", lines)
    files = (
        LinesSource(sequences, negatives=path)
        if option == "negatives"
        else LinesSource(sequences, explanations=(path,))
    )
    with refused("invalid_dataset", message):
        read_lines(files, "shop", Faults())


def test_number_maps_of_other_names_are_refused(tmp_path: Path) -> None:
    maps, sequences = tmp_path / "m.json", write_lines(tmp_path / "s.txt", ["u 1"])
    maps.write_text('{"item2number": {"a": 1}}')
    with refused("invalid_dataset", "m.json has no map id2item or item2id or id2user or user2id; its keys are 'item2n"):
        read_lines(LinesSource(sequences, datamaps=maps), "shop", Faults())


def test_items_that_a_number_map_lacks_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"id2item": {"1": "A"}}')
    faults = Faults()
    read_lines(LinesSource(write_lines(tmp_path / "s.txt", ["u 1 2"]), datamaps=tmp_path / "m.json"), "shop", faults)
    assert faults.notices == ["1 of 2 items have an id in m.json, 1 does not: '2'"]


def test_metadata_of_another_category_is_refused(tmp_path: Path) -> None:
    reviews = write_json_lines(tmp_path / "r.json", [{"reviewerID": "U", "asin": "A", "unixReviewTime": 1}])
    metadata = write_json_lines(tmp_path / "m.json", [{"asin": "Z", "title": "z"}])
    with refused("invalid_dataset", "m.json has no line of an item that is wanted: it has asin 'Z', and the data 'A'"):
        read_amazon_raw(RawSource(reviews, metadata, core=1), "toys", Faults())
