"""`vip5 data additions`: a table of new items and their embeddings as the change of a served catalog."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.schemas.admin import CatalogRequest
from tests.commands import run
from tests.unit.datasets.sources import write_feature, write_lines


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_feature(tmp_path / "embeddings" / f"{name}.npy", 1.5)
    return tmp_path / "embeddings"


def additions(tmp_path: Path, lines: list[str], embeddings: Path) -> tuple[int, Path]:
    items = write_lines(tmp_path / "new.csv", ["item_id,title,category,price,image", *lines])
    out = tmp_path / "out" / "new.json"
    return run("data", "additions", "--items", items, "--features", embeddings, "--out", out), out


def test_rows_have_the_facts_that_are_known_and_the_embedding(
    tmp_path: Path, embeddings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = additions(tmp_path, ["a,Tusan dress,dresses,$55.69,a.jpg", "b,,,,"], embeddings)
    assert status == 0
    body = json.loads(out.read_text())
    assert body == {
        "add": [
            {
                "item_id": "a",
                "title": "Tusan dress",
                "image": "a.jpg",
                "category": "dresses",
                "price": 55.69,
                "feature": [1.5] * len(body["add"][0]["feature"]),
            },
            {"item_id": "b", "feature": body["add"][1]["feature"]},
        ]
    }
    assert all(row.embedding is not None for row in CatalogRequest.model_validate(body).add)
    assert "2 of 2 items have an embedding" in capsys.readouterr().err


def test_an_item_without_an_embedding_is_named_with_the_remedy(
    tmp_path: Path, embeddings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = additions(tmp_path, ["a,A,x,1,", "c,C,x,1,"], embeddings)
    assert status == 1
    assert not out.exists()
    told = capsys.readouterr().err
    assert "item 'c' has no embedding in" in told
    assert "(1 of 2 items have none); encode its picture with vip5 features encode, or remove its line" in told


def test_broken_lines_are_skipped_and_reported(
    tmp_path: Path, embeddings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = additions(tmp_path, ["a,A,x,free,", ",nobody,x,1,", "a,again,x,1,"], embeddings)
    assert status == 0
    assert [row["item_id"] for row in json.loads(out.read_text())["add"]] == ["a"]
    told = capsys.readouterr().err
    assert "price is not a number (new.csv:2: 'free')" in told
    assert "the item is listed twice (new.csv:4)" in told
    assert "the line has neither item nor item_id nor asin (new.csv:3)" in told
