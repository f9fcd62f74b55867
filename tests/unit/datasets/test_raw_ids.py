"""A warning where the shop's own ids would become what the model generates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from model.bundle.catalog import Catalog
from model.datasets.raw_ids import raw_id_warning
from tests.commands import run


def catalog_of(pairs: Sequence[tuple[str, str]]) -> Catalog:
    return Catalog.from_rows({"item_id": item_id, "index": index} for item_id, index in pairs)


@pytest.mark.parametrize(
    "ids", [["B00005N5PF", "B00007JO2F", "7"], ["0108775015", "0110065001"], ["kite-2", "duck-1"]], ids=str
)
def test_asins_article_numbers_and_names_are_warned_of(ids: list[str]) -> None:
    warning = raw_id_warning(catalog_of([(each, each) for each in ids]))
    assert warning is not None
    assert repr(ids[0]) in warning
    assert "vip5 data index" in warning


def test_counted_numbers_paths_and_chosen_texts_are_not() -> None:
    assert raw_id_warning(catalog_of([("1", "1"), ("2", "2"), ("12", "12")])) is None
    assert raw_id_warning(catalog_of([("B00005N5PF", "1"), ("B00007JO2F", "12 3 4")])) is None


def test_prepare_index_and_training_warn_and_the_remedy_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, given = tmp_path / "lines.txt", tmp_path / "given.tsv"
    lines.write_text("ann B01 B02 B03 B04\nbob B02 B01 B04 B03\n")
    given.write_text("".join(f"{name}\t{name}\n" for name in ("B01", "B02", "B03", "B04")))
    data, same, other = (tmp_path / name for name in ("data", "same", "other"))

    assert run("data", "prepare", "lines", "--sequences", lines, "--out", data) == 0
    assert "warning: the identifiers that a model generates are the shop's own ids" in capsys.readouterr().err
    assert run("data", "index", "--data", data, "--method", "given", "--file", given, "--out", same) == 0
    assert "for 4 of 4 items, such as 'B01'" in capsys.readouterr().err
    assert run("data", "index", "--data", data, "--method", "random", "--out", other) == 0
    assert capsys.readouterr().err == ""
