"""An imported checkpoint with the real Toys catalog, served as a real process to real users' histories."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.e2e.processes import PATIENCE_S, ROOT, Server, run_vip5, serving

SHARED = ROOT.parent / "shared"
TOYS = SHARED / "data" / "amazon" / "toys"
GOLDEN = SHARED / "golden" / "tiny-relu"

NUM_USERS = 200
LONGEST_HISTORY = 20
SCORE_TOLERANCE = 5e-5

pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="needs ../shared with the golden model and the Toys data")


@pytest.fixture(scope="module")
def asins() -> dict[int, str]:
    """Item numbers, which are the model's identifiers, to the shop's ids."""
    with gzip.open(TOYS / "items.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {item["item"]: item["asin"] for item in map(json.loads, lines)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, asins: dict[int, str]) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    outcome = run_vip5(
        *("import", "vip5"),
        *("--checkpoint", GOLDEN / "tiny-relu.pth"),
        *("--config", GOLDEN / "config.json"),
        *("--tokenizer", SHARED / "data" / "t5-tokenizer"),
        *("--catalog", _write_catalog(folder / "items.jsonl")),
        *("--features", _write_features(folder / "features.safetensors", asins)),
        *("--domain", "toys", "--out", folder / "bundle"),
    )
    assert outcome.returncode == 0, outcome.stderr
    return folder / "bundle"


@pytest.fixture(scope="module")
def server(bundle: Path, num_workers: int) -> Iterator[Server]:
    with serving(bundle) as server:
        yield server


def _write_catalog(path: Path) -> Path:
    with gzip.open(TOYS / "items.jsonl.gz", "rt", encoding="utf-8") as lines, path.open("w", encoding="utf-8") as rows:
        for item in map(json.loads, lines):
            row = {"item_id": item["asin"], "index": str(item["item"]), "title": item["title"]}
            rows.write(json.dumps(row) + "\n")
    return path


def _write_features(path: Path, asins: dict[int, str], dim: int = 512) -> Path:
    """The golden cases' image features: of item i, drawn from the seed [7, dim, i]."""
    drawn = np.stack([np.random.default_rng([7, dim, item]).standard_normal(dim) for item in asins])
    features = drawn.astype(np.float32)
    features = features / np.linalg.norm(features, axis=1, keepdims=True) * 10
    save_file({"features": features}, path)
    path.with_suffix(".ids.txt").write_text("\n".join(asins.values()) + "\n", encoding="utf-8")
    return path


def test_real_histories_get_ten_new_items_of_the_catalog_without_http(
    bundle: Path, asins: dict[int, str], tmp_path: Path
) -> None:
    bodies = _bodies(asins)
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("".join(json.dumps({"task": "sequential", **body}) + "\n" for body in bodies))
    outcome = run_vip5("predict", "--bundle", bundle, "--requests", asked, "--out", answered)
    assert outcome.returncode == 0, outcome.stderr
    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    _check(bodies, answers, set(asins.values()))


def test_real_histories_get_ten_new_items_of_the_catalog_over_http(server: Server, asins: dict[int, str]) -> None:
    bodies = _bodies(asins)
    limits = httpx.Limits(max_connections=16)
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S, limits=limits) as client:

        def ask(body: dict[str, Any]) -> httpx.Response:
            return client.post("/recommend/sequential", json=body)

        with ThreadPoolExecutor(16) as pool:
            responses = list(pool.map(ask, bodies))
        metrics = client.get("/metrics").text

    assert [response.status_code for response in responses] == [200] * NUM_USERS
    _check(bodies, [response.json() for response in responses], set(asins.values()))
    assert "vip5_invalid_items_total 0.0" in metrics


def _check(bodies: list[dict[str, Any]], answers: list[dict[str, Any]], catalog: set[str]) -> None:
    assert len(bodies) == len(answers) == NUM_USERS
    for body, answer in zip(bodies, answers, strict=True):
        item_ids = [item["item_id"] for item in answer["items"]]
        assert len(set(item_ids)) == 10
        assert set(item_ids) <= catalog - set(body["history"])
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)
        assert answer["degraded"] == []
    assert len({answer["items"][0]["item_id"] for answer in answers}) > 1


def _bodies(asins: dict[int, str]) -> list[dict[str, Any]]:
    with gzip.open(TOYS / "sequential_data.txt.gz", "rt", encoding="utf-8") as lines:
        sequences = [line.split() for line in lines]
    chosen = sequences[:: len(sequences) // NUM_USERS][:NUM_USERS]
    return [
        {"domain": "toys", "user_id": user, "history": [asins[int(item)] for item in items[-LONGEST_HISTORY:]]}
        for user, *items in chosen
    ]


def test_scores_over_http_are_the_log_probabilities_of_the_reference(server: Server, asins: dict[int, str]) -> None:
    cases = [case for case in json.loads((GOLDEN / "cases.json").read_text())["cases"] if _is_ranking(case)]
    exact = load_file(GOLDEN / "exact.safetensors")
    numbers = {asin: number for number, asin in asins.items()}
    assert len(cases) >= 7

    for case in cases:
        body = {
            "domain": "toys",
            "user_id": case["args"]["user_id"],
            "user_name": case["args"]["user_desc"],
            "history": [asins[int(item)] for item in case["args"]["history"]],
            "template": case["template_id"],
            "exclude_history": False,
            "k": 20,
        }
        answer = httpx.post(f"{server.url}/recommend/sequential", json=body, timeout=PATIENCE_S).json()
        log_probs = exact[f"{case['id']}/exact_log_prob"]
        expected = [float(log_probs[numbers[item["item_id"]] - 1]) for item in answer["items"]]
        assert [item["score"] for item in answer["items"]] == pytest.approx(expected, abs=SCORE_TOLERANCE), case["id"]
        true_top = np.sort(log_probs)[::-1][: answer["exact_prefix"]]
        assert expected[: answer["exact_prefix"]] == pytest.approx(true_top, abs=SCORE_TOLERANCE), case["id"]


def _is_ranking(case: dict[str, Any]) -> bool:
    """Whether items are generated after a history, joined in the way that prompts are assembled."""
    is_generated = case["template_id"] in {"A-1", "A-2", "A-3", "A-4", "A-5", "A-6", "A-9"}
    return is_generated and case["args"]["separator"] == ", "
