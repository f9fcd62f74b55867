"""Requests and answers in Parquet are those of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DatasetError
from service.answering.answer_files import SCHEMA, Parquet
from service.answering.request_files import json_of, num_requests_in, requests_in

BODIES: list[dict[str, object]] = [
    {"task": "sequential", "domain": "toys", "history": ["item-1", "item-2"], "k": 3, "where": {"category": ["games"]}},
    {"task": "direct", "domain": "toys", "user_id": "u1", "length_penalty": 0.5},
    {"task": "sequential", "domain": "toys", "history": [], "where": {"brand": ["x"]}, "timings": True},
]


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_rows_are_bodies_without_nulls(tmp_path: Path, first: int) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.Table.from_pylist([{name: None} | body for body in BODIES for name in ["user_name"]], _schema()), path
    )

    assert num_requests_in(path) == 3
    assert [json_of(line) for line in requests_in(path, first)] == BODIES[first:]


def _schema() -> pa.Schema:
    where = pa.map_(pa.string(), pa.list_(pa.string()))
    return pa.schema(
        {
            "task": pa.dictionary(pa.int32(), pa.string()),
            "domain": pa.string(),
            "history": pa.list_(pa.string()),
            "k": pa.float64(),  # as pandas has whole numbers beside nulls
            "where": where,
            "user_id": pa.large_string(),
            "user_name": pa.string(),
            "length_penalty": pa.float32(),
            "timings": pa.bool_(),
        }
    )


def test_structs_lose_the_fields_that_a_row_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"where": [{"category": "games", "price": None}, {"category": None, "price": 3.0}]}), path)

    assert [*requests_in(path)] == [{"where": {"category": "games"}}, {"where": {"price": 3}}]


def test_the_last_value_counts_of_a_key_that_a_map_has_twice(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    where = pa.array([[("category", "games"), ("category", "dolls")], []], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"where": where}), path)

    assert [*requests_in(path)] == [{"where": {"category": "dolls"}}, {"where": {}}]


def test_values_that_python_does_not_have_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"at": pa.array([2**60], pa.timestamp("us"))}), path)

    with pytest.raises(DatasetError, match=r"in.parquet is not a readable Parquet file"):
        list(requests_in(path))


def test_what_is_no_parquet_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_text('{"task": "sequential"}\n', encoding="utf-8")

    with pytest.raises(DatasetError, match=r"is not a readable Parquet file.*jsonl"):
        num_requests_in(path)


def test_every_kind_of_answer_has_a_row(tmp_path: Path) -> None:
    item = {"rank": 1, "item_id": "item-1", "score": -1.5, "title": None, "image": "a.webp", "attributes": {"n": 1}}
    answers = [
        {"request_id": "line-1", "items": [item], "exact_prefix": 1, "num_beams_effective": 20, "degraded": []},
        {"request_id": "line-2", "text": "nice", "star_rating": 4.5, "degraded": [{"kind": "a", "detail": "b"}]},
        {"request_id": "line-3", "status": 404, "code": "unknown_domain", "detail": "no", "errors": [{"field": "x"}]},
    ]
    parts = [tmp_path / f"{number}.parquet" for number in range(2)]
    Parquet().write([json.dumps(answer) for answer in answers[:2]], parts[0])
    Parquet().write([json.dumps(answers[2])], parts[1])
    Parquet().join(parts, tmp_path / "out.parquet")

    table = pq.read_table(tmp_path / "out.parquet")
    rows = table.to_pylist()
    assert table.schema == SCHEMA
    assert [json.loads(row["json"]) for row in rows] == answers
    assert [row["status"] for row in rows] == [200, 200, 404]
    assert rows[0]["items"] == [{name: value for name, value in item.items() if name != "attributes"}]
    assert (rows[1]["text"], rows[1]["star_rating"], rows[1]["items"]) == ("nice", 4.5, None)
    assert rows[2]["code"] == "unknown_domain"
