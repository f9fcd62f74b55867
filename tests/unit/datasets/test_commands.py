"""`vip5 data` and `vip5 bundle audit` as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.datasets.dataset import Dataset
from model.datasets.raw_ids import raw_id_warning
from tests.commands import run
from tests.tiny import tiny_bundle
from tests.unit.datasets.sources import vip5_folder, write_feature, write_json_lines, write_lines


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.txt", ["1 1 2 3", "2 2 1 4", "oops", "3 1 5 6"])


@pytest.fixture
def dataset(tmp_path: Path, sequences: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "datasets" / "shop"
    assert run("data", "prepare", "lines", "--sequences", sequences, "--out", out) == 0
    capsys.readouterr()
    return out


def test_preparing_lines_says_what_was_made_and_what_was_left_out(
    tmp_path: Path, sequences: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shop"
    assert run("data", "prepare", "lines", "--sequences", sequences, "--out", out) == 0
    captured = capsys.readouterr()
    assert captured.out == f"prepared {out}: 3 users, 6 items, 9 interactions, 0 reviews\n"
    assert captured.err == "1 left out: the line has a user and no item (s.txt:3)\n"
    assert Dataset.read(out).provenance.name == "shop"


def test_preparing_a_vip5_folder_takes_everything_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = vip5_folder(tmp_path / "toys"), tmp_path / "out"
    assert run("data", "prepare", "vip5", "--folder", folder, "--out", out, "--name", "toys") == 0
    captured = capsys.readouterr()
    assert captured.out == f"prepared {out}: 3 users, 9 items, 12 interactions, 5 reviews\n"
    assert captured.err.splitlines() == [
        "8 of 8 items have an id in datamaps.json; 1 id matches no sequence: '9'",
        "9 of 9 items have a line in meta.json.gz",
        "3 of 9 items have an embedding, 6 do not: 'B00003', 'B00004', 'B00006', …",
    ]
    dataset = Dataset.read(out)
    assert dataset.provenance.name == "toys"
    assert dataset.features is not None
    assert (len(dataset.negatives), len(dataset.reviews)) == (3, 5)


def test_preparing_says_what_did_not_meet_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequences = write_lines(tmp_path / "s.txt", ["1 a b caf\u00e9", "2 b d a"])
    items = write_json_lines(
        tmp_path / "i.jsonl", [{"item_id": name, "title": name} for name in ("a", "b ", "cafe\u0301", "x")]
    )
    for name in ("a", "cafe\u0301", "b ", "other"):
        write_feature(tmp_path / "features" / f"{name}.npy", 1)
    options = ("--sequences", sequences, "--items", items, "--features", tmp_path / "features")
    assert run("data", "prepare", "lines", *options, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err.splitlines() == [
        "3 of 4 items have a line in i.jsonl, 1 does not: 'd'; 1 line matches no sequence: 'x'",
        "3 of 5 items have an embedding, 2 do not: 'd', 'x'; 1 file matches no item: 'other.npy'",
        raw_id_warning(Dataset.read(tmp_path / "out").catalog),
    ]
    dataset = Dataset.read(tmp_path / "out")
    assert dataset.catalog.indices == ("a", "b", "caf\u00e9", "d", "x")
    assert dataset.catalog.titles == ("a", "b", "cafe\u0301", None, "x")


def test_preparing_raw_reviews_filters_the_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [("U0", "A"), ("U0", "B"), ("U1", "A"), ("U1", "B"), ("U2", "A")]
    records = [{"reviewerID": user, "asin": item, "unixReviewTime": 1} for user, item in pairs]
    reviews, out = write_json_lines(tmp_path / "reviews.json.gz", records), tmp_path / "out"
    assert run("data", "prepare", "amazon-raw", "--reviews", reviews, "--out", out, "--core", 2) == 0
    assert capsys.readouterr().out == f"prepared {out}: 2 users, 2 items, 4 interactions, 4 reviews\n"


def test_a_source_that_cannot_be_read_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_lines(tmp_path / "s.txt", [])
    assert run("data", "prepare", "lines", "--sequences", empty, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err.startswith(f"error: {empty} is empty; it must have lines")
    assert [path.name for path in tmp_path.iterdir()] == ["s.txt"]


def test_a_disk_that_fails_leaves_nothing_behind(
    tmp_path: Path, sequences: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.bundle.folders.publish", fail)
    assert run("data", "prepare", "lines", "--sequences", sequences, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["s.txt"]


def test_a_dataset_is_replaced_only_if_that_is_asked_for(dataset: Path, sequences: Path) -> None:
    arguments = ["data", "prepare", "lines", "--sequences", sequences, "--out", dataset, "--name", "other"]
    assert run(*arguments) == 2
    assert Dataset.read(dataset).provenance.name == "shop"
    assert run(*arguments, "--replace") == 0
    assert Dataset.read(dataset).provenance.name == "other"


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, sequences: Path) -> None:
    out = tmp_path / "home"
    (out / "letters").mkdir(parents=True)
    assert run("data", "prepare", "lines", "--sequences", sequences, "--out", out, "--replace") == 2
    assert (out / "letters").is_dir()


@pytest.mark.parametrize("method", ["sequential", "random", "collaborative"])
def test_indexing_writes_another_dataset(
    dataset: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / method
    assert run("data", "index", "--data", dataset, "--out", out, "--method", method, "--branching", 2) == 0
    indexed = Dataset.read(out)
    assert indexed.provenance.indexing == method
    assert capsys.readouterr().out == f"indexed {out}: 6 items, {method}, such as {indexed.catalog.indices[0]!r}\n"
    if method == "collaborative":
        assert {len(index.split(" ")) for index in indexed.catalog.indices} == {3}


def test_codes_of_purchases_are_reported(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "codes"
    arguments = ["data", "index", "--data", dataset, "--out", out, "--method", "residual", "--pictures", 0]
    assert run(*arguments, "--purchases", 1, "--levels", "2x2", "--last-codes", 9, "--first-code", 40) == 0
    indexed = Dataset.read(out)
    assert indexed.codebook is not None
    assert (indexed.codebook.sizes, indexed.codebook.num_last, indexed.codebook.first_word) == ((2, 2), 9, 40)
    assert "of 6 items are trained on" in capsys.readouterr().out
    for wrong in (
        ["--levels", "8y8"],
        ["--levels", "1x8"],
        ["--method", "random", "--codes", dataset / "dataset.json"],
    ):
        assert run(*arguments, "--replace", *wrong) == 2
    assert run(*arguments, "--replace", "--text-columns", "title") == 2
    assert "give --titles" in capsys.readouterr().err
    assert run(*arguments, "--replace", "--titles", 1, "--text-columns", "title, colour") == 1
    assert "the items have no column 'colour'" in capsys.readouterr().err
    assert run(*arguments, "--replace", "--pictures", 1) == 1
    assert "has no picture embeddings" in capsys.readouterr().err


def test_indexing_in_place_replaces_the_dataset(dataset: Path) -> None:
    arguments = ["data", "index", "--data", dataset, "--out", dataset, "--method", "random", "--seed", 3]
    assert run(*arguments) == 2
    assert run(*arguments, "--replace") == 0
    assert Dataset.read(dataset).provenance.indexing == "random"


def test_given_identifiers_need_a_file_and_others_take_none(dataset: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "ids.tsv", (f"{number}\tword {number}" for number in range(1, 7)))
    out = tmp_path / "given"
    arguments = ["data", "index", "--data", dataset, "--out", out, "--method"]
    assert run(*arguments, "given") == 2
    assert run(*arguments, "random", "--file", path) == 2
    assert run(*arguments, "given", "--file", path) == 0
    assert Dataset.read(out).catalog.indices[0] == "word 1"


def test_show_counts_for_people_and_for_programs(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "show", "--data", dataset) == 0
    shown = capsys.readouterr().out
    for text in ("dataset shop", "sequential: 1, 2, 3, …", "1 left out while preparing: the line has a user"):
        assert text in shown
    assert run("data", "show", dataset, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["num_users"], document["num_items"], document["num_interactions"]) == (3, 6, 9)
    assert document["faults"] == {"the line has a user and no item": 1}


def test_showing_what_is_no_dataset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "show", "--data", tmp_path) == 1
    assert (
        capsys.readouterr().err == f"error: {tmp_path} has no dataset.json; create a dataset with vip5 data prepare\n"
    )


def test_an_audit_counts_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    items = write_json_lines(tmp_path / "i.jsonl", ({"item": n, "item_id": f"item-{n}"} for n in range(1, 121)))
    sequences = write_lines(tmp_path / "s.txt", ["1 1 2 3", "2 4 8 6", "3 7 8 9"])
    data = tmp_path / "data"
    assert run("data", "prepare", "lines", "--sequences", sequences, "--items", items, "--out", data) == 0
    arguments = ["bundle", "audit", "--bundle", tiny_bundle(tmp_path), "--domain", "toys", "--data", data]
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["leaks"]["next_number_test"] == {"count": 2, "of": 3, "ratio": 2 / 3, "examples": ["1", "3"]}
    assert document["identifiers"]["inactive"]["count"] == 12
    assert document["coverage"]["other_index"]["ratio"] == 0
    assert document["leaks"]["negatives_had"]["ratio"] is None
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    for text in ("against data with given indices", "test target's number is the history's largest + 1", "66.67%"):
        assert text in shown


def test_auditing_a_domain_that_is_not_there_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bundle", "audit", "--bundle", tiny_bundle(tmp_path), "--domain", "hats", "--data", dataset) == 2
    assert "has no domain 'hats'; it has toys" in capsys.readouterr().err
