"""`vip5 evaluate` and `vip5 compare`, in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.evaluation.answers import RankedAnswer, read_answers
from model.evaluation.report import Report
from tests.commands import run
from tests.tiny import tiny_bundle
from tests.unit.evaluation.datasets import toys_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and the data of its domain."""
    root = tmp_path_factory.mktemp("commands")
    tiny_bundle(root)
    toys_dataset().write(root / "data")
    return root


def evaluate(folder: Path, *arguments: object, data: Path | None = None, domain: str = "toys") -> int:
    data = data or folder / "data"
    return run("evaluate", "--bundle", folder / "bundle", "--domain", domain, "--data", data, *arguments)


def test_a_run_that_was_cut_off_goes_on_and_another_one_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, journal = tmp_path / "toys.json", tmp_path / "toys.answers.jsonl"
    options = ("--templates", "A-3", "--batch-tokens", "100", "--out", out)
    assert evaluate(folder, *options) == 0
    whole, answers = Report.read(out), ranked(journal)
    journal.write_bytes(journal.read_bytes()[:-700])
    assert evaluate(folder, *options) == 0
    assert Report.read(out).results[0].metrics == whole.results[0].metrics
    assert ranked(journal) == answers
    capsys.readouterr()
    assert evaluate(folder, *options, "--num-beams", 30) == 1
    refusal = capsys.readouterr().err
    assert refusal.startswith(
        f"error: {journal} has the answers of another evaluation: its num_beams is 20, now it is 30"
    )


def ranked(journal: Path) -> list[tuple[str, ...]]:
    return [answer.item_ids for answer in read_answers(journal) if isinstance(answer, RankedAnswer)]


def test_bad_input_is_one_clear_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys_dataset([[1, 2], [3, 4]]).write(tmp_path / "short")
    toys_dataset(num_items=121).write(tmp_path / "more")
    (tmp_path / "empty").mkdir()

    def refusal(*arguments: object, data: Path | None = None, domain: str = "toys", status: int = 1) -> str:
        assert evaluate(folder, *arguments, data=data, domain=domain) == status
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        return line.removeprefix("error: ")

    assert refusal(domain="books", status=2) == "the bundle has no domain 'books'; it has toys"
    assert refusal(data=tmp_path / "more").startswith(
        "1 of 121 items of toys are not in the catalog of toys: item-121;"
    )
    assert refusal("--split", "val", data=tmp_path / "short").startswith("no user of toys has the 3 interactions")
    assert refusal(data=tmp_path / "empty").startswith(f"{tmp_path / 'empty'} has no dataset.json")
    assert refusal("--templates", "C-13", status=2).startswith("'C-13' is not a template")
    assert refusal("--tasks", "explanation").startswith("no review of toys in the split test")


def test_what_is_missing_to_evaluate_is_one_line_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr("model.evaluation.evaluation.evaluate", fail)
    assert evaluate(folder) == 1
    assert capsys.readouterr().err == (
        "error: No module named 'scipy'; this command needs the extra train: pip install 'vip5-serve[train]'\n"
    )


def test_the_table_shows_beams_against_the_exact_ranking(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folder, "--templates", "A-3", "--exact", 2, "--num-users", 4, "--without-images") == 0
    shown = capsys.readouterr().out
    assert "sequential: 4 users, 108 candidates" in shown
    assert "A-3: of 4 answers, 4 missing_features, 4 untrained_model" in shown
    assert "A-3: beams against the exact ranking of the catalog, 2 users" in shown


def test_results_are_compared_in_one_table_and_one_plot(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    assert evaluate(folder, "--templates", "A-3", "--users", 5, "--out", one) == 0
    report = Report.read(one)
    replace(report, options=replace(report.options, split="val")).write(other)
    assert json.loads(one.read_text(encoding="utf-8"))["options"]["num_users"] == 5
    capsys.readouterr()
    assert run("compare", one, other, "--plot", tmp_path / "plot.png") == 0
    shown = capsys.readouterr().out
    assert [line.split(" | ")[2:4] for line in shown.splitlines()[2:]] == [["one", "toys test"], ["other", "toys val"]]
    assert (tmp_path / "plot.png").stat().st_size > 5_000
    assert run("compare", one, other, "--out", tmp_path / "table.md") == 0
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == shown
    assert run("compare") == 2
