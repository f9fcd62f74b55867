"""`vip5 evaluate` measures what `vip5 serve` answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from model.evaluation.answers import Answer, RankedAnswer, TextAnswer, read_answers
from model.evaluation.held_out import HeldOut
from model.evaluation.options import EvaluationOptions
from model.evaluation.report import Report
from tests.e2e.processes import PATIENCE_S, run_vip5, serving
from tests.tiny import tiny_bundle, tiny_catalog
from tests.unit.evaluation.datasets import toy_review, toys_dataset
from tests.unit.planning.domains import tiny_domain

DATASET = toys_dataset(reviews=[toy_review(user) for user in range(4)])
TEMPLATES = "A-3,A-8,B-5,B-1,C-3,C-8"
PATHS = {"A": "/recommend/sequential", "B": "/recommend/direct", "C": "/explain"}
ROUNDING = 1e-3


def test_every_answer_is_that_of_the_service_item_for_item(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    DATASET.write(tmp_path / "data")
    out = tmp_path / "results" / "toys.json"
    where = ("--bundle", bundle, "--domain", "toys", "--data", tmp_path / "data", "--out", out)
    asked = ("--templates", TEMPLATES, "--max-new-tokens", "6", "--baselines", "random", "--num-threads", "1")
    outcome = run_vip5("evaluate", *where, *asked)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    for heading in ("sequential: 9 users", "direct: 9 users", "explanation: 4 users", "random", "HR@5", "ROUGE-L"):
        assert heading in outcome.stdout
    answers = read_answers(out.with_name("toys.answers.jsonl"))
    assert len(answers) == 4 * 9 + 2 * 4
    assert len(Report.read(out).results) == 6 + 2
    with serving(bundle) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        for answer in answers:
            response = client.post(PATHS[answer.template[0]], json=body_of(answer))
            assert response.status_code == 200, response.text
            assert_same(answer, response.json())


def body_of(answer: Answer) -> dict[str, Any]:
    """The request that a client would send for the question, made from the data alone."""
    item_ids = DATASET.catalog.item_ids
    body: dict[str, Any] = {"domain": "toys", "template": answer.template}
    if isinstance(answer, TextAnswer):
        review = DATASET.reviews[answer.review]
        about: dict[str, Any] = {"item_id": item_ids[review.item], "user_id": f"u{review.user + 1}", "star_rating": 4}
        return body | about | {"max_new_tokens": 6}
    history = [item_ids[row] for row in DATASET.sequences.of(answer.user)[:-1]]
    held_out = HeldOut.of(DATASET, tiny_domain(catalog=tiny_catalog()), EvaluationOptions())
    candidates = [item_ids[row] for row in held_out.candidates(answer.user)]
    body["user_id"] = f"u{answer.user + 1}"
    if answer.template.startswith("B"):
        return body | {"candidates": candidates}
    asked = {"include_items": candidates} if answer.template == "A-8" else {}
    return body | {"history": history, "exclude_history": False} | asked


def assert_same(answer: Answer, served: dict[str, Any]) -> None:
    if isinstance(answer, TextAnswer):
        found = {"text": answer.text, "star_rating": answer.star_rating, "finish_reason": answer.finish_reason}
        assert found == {name: served[name] for name in found}
    else:
        assert isinstance(answer, RankedAnswer)
        assert list(answer.item_ids) == [item["item_id"] for item in served["items"]]
        assert list(answer.scores) == pytest.approx([item["score"] for item in served["items"]], abs=ROUNDING)
        assert answer.exact_prefix == served["exact_prefix"]
    assert sorted(answer.degraded) == sorted(each["kind"] for each in served["degraded"])
