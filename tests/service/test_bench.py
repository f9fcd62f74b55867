"""`vip5 bench` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.engine.captured.buckets import Bucket
from model.engine.captured.options import read_buckets
from service.answering.beam_reduction import BeamTable
from tests.commands import run
from tests.tiny import tiny_bundle

SMALL = ["--num-requests", 3, "--repeats", 2, "--rows", "2,1", "--tokens", "60,120", "--beams", "3,12", "--k", 3]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bench"), ("toys", "garments"))


def test_shapes_to_capture_and_the_beam_table_are_written_for_those_who_read_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "buckets.json"
    assert run("bench", "--bundle", root, *SMALL, "--num-beams", 12, "--num-threads", 1, "--out", path) == 0
    assert "requests/s" in capsys.readouterr().out
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
def test_numbers_that_are_none_are_wrong_usage(root: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", "--bundle", root, "--rows", text) == 2
    assert capsys.readouterr().err == f"error: --rows is {text!r}; give numbers above 0, separated by commas\n"


def test_tokens_too_few_for_any_prompt_are_refused_with_a_remedy(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", "--bundle", root, "--tokens", 2) == 2
    assert "give larger --tokens" in capsys.readouterr().err
