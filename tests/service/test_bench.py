"""`vip5 bench` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model.engine.captured.buckets import Bucket
from model.engine.captured.options import read_buckets
from service.answering.beam_reduction import BeamTable
from service.cli import app
from tests.tiny import tiny_bundle

SMALL = ["--requests", "3", "--repeats", "2", "--rows", "2,1", "--tokens", "60,120", "--beams", "3,12", "--k", "3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bench"), ("toys", "garments"))


def test_shapes_to_capture_and_the_beam_table_are_written_for_those_who_read_them(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "buckets.json"
    ran = CliRunner().invoke(
        app, ["bench", "--bundle", str(root), *SMALL, "--num-beams", "12", "--num-threads", "1", "--write", str(path)]
    )
    assert ran.exit_code == 0, ran.output
    assert "requests/s" in ran.output
    assert read_buckets(path) == (
        Bucket(2, 120, 12, 64, is_mixed=True),
        Bucket(2, 60, 12, 64, is_mixed=True),
        Bucket(1, 120, 12, 64, is_mixed=False),
        Bucket(1, 60, 12, 64, is_mixed=False),
    )
    narrow, widest = BeamTable.read(path).beams
    assert (narrow.num_beams, widest.num_beams) == (3, 12)
    assert narrow.recall <= widest.recall == 1
    written = json.loads(path.read_text(encoding="utf-8"))
    rates = [shape["requests_per_s"] for shape in written["shapes"]]
    assert written["best"]["requests_per_s"] == max(rates) > 0


@pytest.mark.parametrize("text", ["", "1,x", "0", "-1"])
def test_numbers_that_are_none_are_wrong_usage(root: Path, text: str) -> None:
    ran = CliRunner().invoke(app, ["bench", "--bundle", str(root), "--rows", text])
    assert ran.exit_code == 2
    assert "--rows" in ran.output


def test_tokens_too_few_for_any_prompt_are_refused_with_a_remedy(root: Path) -> None:
    ran = CliRunner().invoke(app, ["bench", "--bundle", str(root), "--tokens", "2"])
    assert "give larger --tokens" in str(ran.exception)
