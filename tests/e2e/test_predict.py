"""`vip5 predict` answers a file as HTTP would, in order, and goes on after bad lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from tests.e2e.processes import PATIENCE_S, environment, run_vip5, serving
from tests.tiny import tiny_bundle

SEQUENTIAL: dict[str, Any] = {"task": "sequential", "domain": "toys", "history": ["item-1"], "k": 3}
DIRECT: dict[str, Any] = {"task": "direct", "domain": "toys", "candidates": ["item-4", "item-5"], "user_id": "u1"}
EXPLANATION: dict[str, Any] = {"task": "explanation", "domain": "toys", "item_id": "item-5", "max_new_tokens": 4}
PATHS = {"sequential": "/recommend/sequential", "direct": "/recommend/direct", "explanation": "/explain"}


def predict(tmp_path: Path, bundle: Path, lines: list[str]) -> tuple[list[dict[str, Any]], str]:
    requests, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    requests.write_text("\n".join(lines) + "\n", encoding="utf-8")
    outcome = run_vip5("predict", "--bundle", bundle, "--requests", requests, "--out", out, "--num-threads", "1")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == ""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], outcome.stderr


def test_answers_are_those_of_http_in_order(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    bodies: list[dict[str, Any]] = [SEQUENTIAL | {"k": 1 + n % 5} for n in range(400)] + [
        DIRECT,
        EXPLANATION,
        SEQUENTIAL | {"k": 0},
    ]

    answers, stderr = predict(tmp_path, bundle, [json.dumps(body) for body in bodies])

    assert [len(answer["items"]) for answer in answers[:400]] == [1 + n % 5 for n in range(400)]
    assert stderr.startswith("402 answered, 1 failed, written to ")
    with serving(bundle) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        for body, answer in [*zip(bodies, answers, strict=True)][397:]:
            fields = {name: value for name, value in body.items() if name != "task"}
            over_http = client.post(PATHS[str(body["task"])], json=fields).json()
            assert _comparable(answer) == _comparable(over_http)


def _comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run: the request's id, and rounding in batches of other sizes."""
    items = [item | {"score": round(item["score"], 3)} for item in answer.get("items", [])]
    return answer | {"request_id": "", "items": items}


def test_bad_lines_give_problem_documents_in_their_place(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    lines = [
        "not json",
        "[1]",
        json.dumps({"domain": "toys", "history": ["item-1"]}),
        json.dumps(SEQUENTIAL | {"task": "guess"}),
        json.dumps(SEQUENTIAL | {"domain": "none"}),
        json.dumps(SEQUENTIAL | {"colour": 1}),
        "",
        json.dumps(SEQUENTIAL),
    ]

    answers, stderr = predict(tmp_path, bundle, lines)

    assert [answer.get("code") for answer in answers] == [
        "malformed_body",
        "malformed_body",
        "invalid_input",
        "invalid_input",
        "unknown_domain",
        "invalid_input",
        "malformed_body",
        None,
    ]
    assert [answer["request_id"] for answer in answers] == [f"line-{n}" for n in range(1, 9)]
    assert answers[5]["errors"][0]["field"] == "colour"
    assert len(answers[7]["items"]) == 3
    assert stderr.startswith("1 answered, 7 failed, written to ")


def test_a_killed_run_goes_on_where_it_ended_and_parquet_holds_the_same(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    bodies = [SEQUENTIAL | {"k": 1 + n % 5} for n in range(12)] + [DIRECT, SEQUENTIAL | {"k": 0}]
    expected, _ = predict(tmp_path, bundle, [json.dumps(body) for body in bodies])
    requests, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.Table.from_pylist(bodies, pa.schema(_COLUMNS)), requests)
    options: list[str | Path] = [
        "predict",
        "--bundle",
        bundle,
        "--requests",
        requests,
        "--out",
        out,
        "--num-threads",
        "1",
    ]

    killed = [sys.executable, "-m", "tests.e2e.killed_predict", *map(str, options)]
    ended = subprocess.run(killed, env=environment(), check=False, timeout=PATIENCE_S).returncode
    assert ended == -signal.SIGKILL
    assert not out.exists()
    parts = tmp_path / "out.parquet.parts"
    assert sorted(path.name for path in parts.glob("*.part")) == [
        "000000000000-5-0.part",
        "000000000005-5-0.part",
    ]
    resumed = run_vip5(*options)

    assert resumed.stderr.startswith("13 answered, 1 failed, written to "), resumed.stderr
    assert not parts.exists()
    rows = pq.read_table(out).to_pylist()
    assert [row["request_id"] for row in rows] == [f"line-{n}" for n in range(1, 15)]
    assert [row["status"] for row in rows] == [200] * 13 + [422]
    for row, answer in zip(rows, expected, strict=True):
        assert _comparable(json.loads(row["json"])) == _comparable(answer)


_COLUMNS: dict[str, pa.DataType] = {
    "task": pa.string(),
    "domain": pa.string(),
    "user_id": pa.string(),
    "history": pa.list_(pa.string()),
    "candidates": pa.list_(pa.string()),
    "k": pa.int32(),
}
