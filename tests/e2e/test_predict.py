"""`vip5 predict` answers a file as HTTP would, in order, and goes on after bad lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.processes import PATIENCE_S, run_vip5, serving
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
