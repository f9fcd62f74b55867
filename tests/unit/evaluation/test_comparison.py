"""Several results side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import DatasetError
from model.evaluation.comparison import comparison_table, read_reports, write_comparison
from model.evaluation.metrics import Estimate
from model.evaluation.options import EvaluationOptions
from model.evaluation.report import Report, Result


def result(name: str, value: float, *, is_baseline: bool = False, metric: str = "ndcg@5") -> Result:
    return Result(
        task="explanation" if name.startswith("C") else "sequential",
        name=name,
        is_baseline=is_baseline,
        num_users=1200,
        num_questions=1200,
        metrics={metric: Estimate(value, value - 0.01, value + 0.02)},
        seconds=1.0,
    )


def report(*results: Result) -> Report:
    return Report(
        bundle="b" * 64,
        domain="toys",
        dataset="toys",
        dataset_fingerprint="d" * 64,
        indexing="random",
        hardware="a machine",
        options=EvaluationOptions(),
        seconds=2.0,
        results=results,
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    popular = result("popularity", 0.0125, is_baseline=True)
    reports = {
        "small": report(result("A-3", 0.25), result("C-3", 7.5, metric="rouge-l"), popular),
        "large": report(result("A-3", 0.5), popular),
    }
    for name, each in reports.items():
        each.write(tmp_path / f"{name}.json")
    return [tmp_path / "small.json", tmp_path / "large.json"]


def test_the_table_has_a_line_for_each_template_and_run(files: list[Path]) -> None:
    assert comparison_table(read_reports(files)).splitlines() == [
        "| task | by | run | data | users | NDCG@5 | ROUGE-L |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
        "| sequential | A-3 | small | toys test | 1200 | 0.2500 (0.2400 to 0.2700) | – |",
        "| sequential | A-3 | large | toys test | 1200 | 0.5000 (0.4900 to 0.5200) | – |",
        "| sequential | popularity | all | toys test | 1200 | 0.0125 (0.0025 to 0.0325) | – |",
        "| explanation | C-3 | small | toys test | 1200 | – | 7.50 (7.49 to 7.52) |",
    ]


def test_a_baseline_that_differs_between_runs_stands_in_each(files: list[Path]) -> None:
    other = report(result("popularity", 0.75, is_baseline=True))
    other.write(files[1])
    lines = comparison_table(read_reports(files)).splitlines()
    assert [line.split(" | ")[2] for line in lines if "popularity" in line] == ["small", "large"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_one_table_and_one_plot_are_written(files: list[Path], tmp_path: Path, suffix: str) -> None:
    table, plot = tmp_path / "table.md", tmp_path / f"plot.{suffix}"
    write_comparison(files, table, plot)
    assert table.read_text(encoding="utf-8") == comparison_table(read_reports(files))
    assert plot.read_bytes()[:4] in (b"\x89PNG", b"<?xm")
    assert plot.stat().st_size > 5_000


def test_an_interval_beside_its_figure_can_be_drawn(files: list[Path], tmp_path: Path) -> None:
    skewed = result("A-3", 0.25)
    report(replace(skewed, metrics={"ndcg@5": Estimate(0.25, 0.26, 0.3)})).write(files[0])
    write_comparison(files, tmp_path / "table.md", tmp_path / "plot.png")


def test_results_of_one_name_are_told_apart_by_their_folders(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    files[0].rename(folder / "large.json")
    assert list(read_reports([files[1], folder / "large.json"])) == [f"{tmp_path.name}/large", "again/large"]
    with pytest.raises(DatasetError, match="two results have the name"):
        read_reports([files[1], files[1]])


def test_what_cannot_be_compared_is_named(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no results to compare"):
        read_reports([])
    with pytest.raises(
        DatasetError, match=r"plot\.docx cannot be written .* give a path that ends in \.png, \.svg or \.pdf"
    ):
        write_comparison(files, tmp_path / "table.md", tmp_path / "plot.docx")
    (tmp_path / "small.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"small\.json is not a result of vip5 evaluate"):
        read_reports(files)
