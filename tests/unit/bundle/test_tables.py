from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.bundle.catalog import Catalog
from model.bundle.tables import read_bundled_parquet, read_source
from model.errors import CatalogError
from tests.unit.bundle.refusals import refused

ROWS = [
    {"item_id": "a", "index": 1, "title": "2014-01-02", "tags": ["x"]},
    {"item_id": "b", "index": 2, "title": "2014-01-03"},
]


def lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("name", ["items.jsonl", "items.jsonl.gz", "items.parquet"])
def test_json_lines_and_parquet_give_the_same_catalog(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist([{"tags": None, **row} for row in ROWS]), path)
    else:
        path.write_bytes(gzip.compress(lines(ROWS)) if name.endswith("gz") else lines(ROWS))
    catalog = Catalog.from_table(read_source(path), name)
    assert catalog.item_ids == ("a", "b")
    assert catalog.indices == ("1", "2")
    assert catalog.titles == ("2014-01-02", "2014-01-03")
    assert catalog.attributes(0)["tags"] == ("x",)
    assert catalog.attributes(1)["tags"] is None


@pytest.mark.parametrize(
    "dates",
    [["2014-01-02", "2014-02-03 10:00:00"], [["2014-01-02"], []], {"of": [{"day": "2014-01-02"}]}, "2014-01-02"],
)
def test_texts_that_look_like_dates_stay_texts_at_any_depth(tmp_path: Path, dates: object) -> None:
    rows: list[dict[str, object]] = [{"item_id": "a", "dates": dates, "index": "1"}, {"item_id": "b", "dates": None}]
    (tmp_path / "items.jsonl").write_bytes(lines(rows))
    table = read_source(tmp_path / "items.jsonl")
    assert table.column_names == ["item_id", "dates", "index"]
    assert table.column("dates").to_pylist() == [dates, None]


def test_lists_of_dates_are_attributes(tmp_path: Path) -> None:
    days = ["2014-01-02", "2014-02-03"]
    (tmp_path / "items.jsonl").write_bytes(lines([{"item_id": "a", "index": "1", "restocked": days}]))
    catalog = Catalog.from_table(read_source(tmp_path / "items.jsonl"), "items.jsonl")
    assert catalog.attributes(0)["restocked"] == tuple(days)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", b"item_id,index\n", "items.csv has an unknown suffix; give JSON lines"),
        ("items.jsonl", b"", "items.jsonl is not readable JSON lines"),
        ("items.jsonl", b'{"item_id": "a"\n', "items.jsonl is not readable JSON lines"),
        ("items.jsonl", b'{"index": "a"}\n{"index": 1}\n', "Column(/index) changed from string to number in row 1"),
        ("items.jsonl.gz", b"not gzip", "items.jsonl.gz is not readable JSON lines"),
        ("items.parquet", b"PAR1", "items.parquet is not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with refused("invalid_catalog", message):
        read_source(tmp_path / name)


def test_a_name_of_a_column_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"item_id": "a", "\xff": "1"}\n')
    with refused("invalid_catalog", "items.jsonl is not readable JSON lines"):
        read_source(path)


def test_every_changed_byte_of_a_parquet_files_pages_gives_a_table_or_a_refusal(tmp_path: Path) -> None:
    """Among them are places outside a dictionary, which Arrow does not check when it reads them."""
    path = tmp_path / "catalog.parquet"
    pq.write_table(pa.table({"item_id": ["a", "b", "c", "a"]}), path, compression="none", store_schema=False)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    outcomes = set()
    for place in range(4, footer):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x7F]) + content[place + 1 :])
        try:
            read_bundled_parquet(path, "catalog.parquet").to_pylist()
            outcomes.add("read")
        except CatalogError as error:
            outcomes.add("out of bounds" if "bounds" in str(error) else "refused")
    assert outcomes == {"read", "refused", "out of bounds"}


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    ids = pa.array(["a", "b"])
    pq.write_table(pa.Table.from_arrays([ids, ids, ids], ["item_id", "item_id", "index"]), tmp_path / "items.parquet")
    with refused("invalid_catalog", "items.parquet has 2 columns item_id; remove or rename all but one"):
        read_source(tmp_path / "items.parquet")


def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "ITEMS.JSONL").write_text('{"item_id": "a", "index": "1"}\n')
    assert read_source(tmp_path / "ITEMS.JSONL").column_names == ["item_id", "index"]
