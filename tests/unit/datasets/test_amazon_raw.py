from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.datasets.amazon_raw import RawSource, read_amazon_raw
from model.datasets.dataset import Dataset
from model.datasets.faults import Faults
from model.datasets.interactions import k_core
from tests.unit.bundle.refusals import refused
from tests.unit.datasets.sources import write_feature, write_json_lines, write_lines


def review(user: str, item: str, time: int, **fields: object) -> dict[str, object]:
    return {
        "reviewerID": user,
        "asin": item,
        "unixReviewTime": time,
        "overall": 4.0,
        "summary": f"{user} {item}",
        **fields,
    }


def read(files: RawSource, faults: Faults | None = None) -> Dataset:
    return read_amazon_raw(files, "toys", faults or Faults())


def test_reviews_are_ordered_by_time_and_numbered_by_first_appearance(tmp_path: Path) -> None:
    reviews = write_json_lines(
        tmp_path / "reviews_Toys_5.json.gz",
        [
            review("U9", "C", 30),
            review("U1", "A", 5, reviewerName="Ann &amp; Co"),
            review("U9", "B", 10),
            review("U9", "A", 10),
            review("U1", "D", 4),
        ],
    )
    dataset = read(RawSource(reviews, core=1))
    assert dataset.users.table.to_pylist() == [
        {"user_id": "U9", "index": "1", "name": None},
        {"user_id": "U1", "index": "2", "name": "Ann & Co"},
    ]
    assert dataset.catalog.item_ids == ("B", "A", "C", "D")
    assert dataset.catalog.indices == ("1", "2", "3", "4")
    assert dataset.sequences.offsets.tolist() == [0, 3, 5]
    assert dataset.sequences.items.tolist() == [0, 1, 2, 3, 1]
    assert dataset.sequences.timestamps is not None
    assert dataset.sequences.timestamps.tolist() == [10, 10, 30, 4, 5]
    assert dataset.provenance.indexing == "sequential"


def test_reviews_are_held_out_by_their_place_and_keep_stars_and_summary(tmp_path: Path) -> None:
    found = [review("U1", item, time, overall=time) for time, item in enumerate("ABCD", start=1)]
    dataset = read(RawSource(write_json_lines(tmp_path / "r.json", [*found, review("U2", "A", 1)]), core=1))
    assert [(r.user, dataset.catalog.item_ids[r.item], r.split, r.star_rating) for r in dataset.reviews] == [
        (0, "A", "train", 1.0),
        (0, "B", "train", 2.0),
        (0, "C", "val", 3.0),
        (0, "D", "test", 4.0),
        (1, "A", "test", 4.0),
    ]
    assert dataset.reviews[1].headline == "U1 B"
    assert {r.explanation for r in dataset.reviews} == {None}


def test_metadata_of_2014_is_read_as_literals_and_never_run(tmp_path: Path) -> None:
    reviews = write_json_lines(tmp_path / "r.json", [review("U", item, 1) for item in "ABC"])
    trace = tmp_path / "trace"
    metadata = write_lines(
        tmp_path / "meta_Toys.json.gz",
        [
            r"""{'asin': 'A', 'title': "Bob\'s \d toy &lt;3", 'imUrl': 'http://a.jpg', 'price': 5.99, 'brand': 'X'}""",
            json.dumps({"asin": "B", "title": "strict", "categories": [["Toys", "Dolls"]], "salesRank": {"Toys": 1}}),
            f"{{'asin': 'C', 'title': __import__('os').system('touch {trace}')}}",
            "{'asin': 'Z', 'title': 'of no review'}",
            "{" * 5000,
        ],
    )
    faults = Faults()
    dataset = read(RawSource(reviews, metadata, core=1), faults)
    assert dataset.catalog.titles == (r"Bob's \d toy <3", "strict", None)
    assert dataset.catalog.images == ("http://a.jpg", None, None)
    assert dataset.catalog.attributes(0)["price"] == 5.99
    assert dataset.catalog.attributes(1)["category"] == "Dolls"
    assert faults.places == {
        "the line is neither a JSON object nor a Python literal of one": ["meta_Toys.json.gz:3", "meta_Toys.json.gz:5"]
    }
    assert not trace.exists()


def test_given_explanations_stand_in_for_the_review_of_the_pair(tmp_path: Path) -> None:
    reviews = write_json_lines(tmp_path / "r.json", [review("U", item, n) for n, item in enumerate("ABCD")])
    explanations = write_json_lines(
        tmp_path / "e.jsonl", [{"reviewerID": "U", "asin": "C", "feature": "dice", "explanation": "nice dice"}]
    )
    dataset = read(RawSource(reviews, explanations=(explanations,), core=1))
    assert len(dataset.reviews) == 4
    first = dataset.reviews[0]
    assert (first.split, first.headline, first.star_rating) == ("val", "U C", 4.0)
    assert (first.feature, first.explanation) == ("dice", "nice dice")


def test_broken_reviews_are_counted_and_named(tmp_path: Path) -> None:
    good = review("U", "A", 1)
    lines = [
        json.dumps(good),
        json.dumps(good),
        '{"asin": "A", "unixReviewTime": 1}',
        json.dumps({**good, "asin": 7}),
        json.dumps({**good, "unixReviewTime": "today"}),
        json.dumps({**good, "unixReviewTime": 10**400}),
        json.dumps({**good, "unixReviewTime": True}),
        '{"reviewerID": "U", "asi',
        json.dumps({**good, "asin": "B", "overall": "five", "summary": 3}),
    ]
    faults = Faults()
    dataset = read(RawSource(write_lines(tmp_path / "r.json", lines), core=1), faults)
    assert faults.places == {
        "the review repeats user, item and time of an earlier one": ["r.json:2"],
        "the review has no reviewerID, or no asin": ["r.json:3"],
        "asin is not a text, which keeps leading zeros": ["r.json:4: 7"],
        "the review has no unixReviewTime in seconds": ["r.json:5", "r.json:6", "r.json:7"],
        "the line is neither a JSON object nor a Python literal of one": ["r.json:8"],
        "overall is not a number": ["r.json:9: 'five'"],
    }
    assert dataset.catalog.item_ids == ("A", "B")
    assert (dataset.reviews[1].star_rating, dataset.reviews[1].headline) == (None, "3")


def test_filtering_is_repeated_until_everybody_has_enough(tmp_path: Path) -> None:
    # U3 goes for having one review, so C is left with one and goes, so U2 is left with one and goes.
    pairs = [("U0", "A"), ("U0", "B"), ("U1", "A"), ("U1", "B"), ("U2", "A"), ("U2", "C"), ("U3", "C")]
    reviews = write_json_lines(tmp_path / "r.json", [review(user, item, 1) for user, item in pairs])
    dataset = read(RawSource(reviews, core=2))
    assert dataset.users.table["user_id"].to_pylist() == ["U0", "U1"]
    assert dataset.catalog.item_ids == ("A", "B")
    with refused(
        "invalid_dataset", "the 5-core is empty: no reviews remain where each user and item has 5; choose a smaller"
    ):
        read(RawSource(reviews))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=80), st.integers(1, 4))
def test_the_core_is_the_largest_set_where_everybody_has_enough(pairs: list[tuple[int, int]], core: int) -> None:
    users, items = (
        (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        if pairs
        else (
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
        )
    )
    left = set(range(len(pairs)))
    while True:  # one at a time, in any order, comes to the same set
        poor = [
            place
            for place in left
            if sum(pairs[other][0] == pairs[place][0] for other in left) < core
            or sum(pairs[other][1] == pairs[place][1] for other in left) < core
        ]
        if not poor:
            break
        left.remove(poor[0])
    assert set(np.flatnonzero(k_core(users, items, core)).tolist()) == left


def test_features_are_taken_by_asin(tmp_path: Path) -> None:
    write_feature(tmp_path / "features/A.npy", 1)
    reviews = write_json_lines(tmp_path / "r.json", [review("U", "A", 1)])
    dataset = read(RawSource(reviews, features=tmp_path / "features", core=1))
    assert dataset.features is not None
    assert dataset.features.item_ids == ("A",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x", "y"], "all 2 lines are broken; the file must have one JSON object per line"),
        ([], "has no review with reviewerID, asin and unixReviewTime"),
        (
            ['{"a": 1}'],
            "has no review with reviewerID, asin and unixReviewTime: 1 left out: the review has no reviewerID",
        ),
    ],
)
def test_a_file_without_a_good_review_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with refused("invalid_dataset", message):
        read(RawSource(write_lines(tmp_path / "r.json", lines)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with refused("invalid_dataset", "none.json does not exist; check the path"):
        read(RawSource(tmp_path / "none.json"))
