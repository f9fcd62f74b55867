"""VIP5's studies on the demonstration's data."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from demo import make, paper
from demo.make import RUNS
from demo.paper import STUDIES, SWEEP, plot, study
from model.bundle.bundle import open_bundle
from model.evaluation.comparison import read_reports
from model.evaluation.report import Report
from model.training.sweep import read_sweep
from tests.unit.demo.test_make import TINY
from tests.unit.evaluation.test_comparison import report, result

CHANGES = {"steps = 600": "steps = 2", "steps = 2000": "steps = 2", "num_users = 2000": "num_users = 10"}


def reports_of(value: float) -> dict[str, Report]:
    names = {name for each in STUDIES for name in each.variants.values()}
    return {name: report(result("A-3", value, metric="hr@5")) for name in names}


@pytest.fixture
def short_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run files with few steps, and a sweep of its first variant."""
    runs = shutil.copytree(RUNS, tmp_path / "runs")
    shutil.copy(SWEEP, runs)
    for name in ("paper", "paper-sweep", "text-backbone"):
        text = (runs / f"{name}.toml").read_text(encoding="utf-8")
        for old, new in CHANGES.items():
            text = text.replace(old, new)
        first, _, _ = text.partition('[[variants]]\nname = "text-only"')
        (runs / f"{name}.toml").write_text(first, encoding="utf-8")
    monkeypatch.setattr(make, "RUNS", runs)
    monkeypatch.setattr(paper, "RUNS", runs)
    monkeypatch.setattr(paper, "SWEEP", runs / SWEEP.name)


def test_every_variant_of_the_sweep_is_in_a_panel_and_changes_one_thing() -> None:
    sweep = tomllib.loads(SWEEP.read_text(encoding="utf-8"))
    drawn = {name for each in STUDIES for name in each.variants.values()}

    assert {each["name"] for each in sweep["variants"]} == drawn
    changes = [(*each.get("set", {}), *each.get("without", ())) for each in sweep["variants"]]
    assert [len(each) for each in changes if each != ("tune", "adapters")] == [0, *[1] * (len(changes) - 2)]


def test_the_sweep_freezes_a_backbone_that_has_not_seen_pictures(tmp_path: Path) -> None:
    shutil.copy(RUNS / "paper.toml", tmp_path)
    runs = {run.name: run.file for run in read_sweep(Path(shutil.copy(SWEEP, tmp_path))).runs}

    assert {run.start for run in runs.values()} == {"text-backbone"}
    assert {name for name, run in runs.items() if run.tune != "adapters"} == {"everything"}
    assert {name for name, run in runs.items() if run.images is None} == {"text-only"}
    assert "images" not in tomllib.loads((RUNS / "text-backbone.toml").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("short_runs")
def test_a_study_trains_and_evaluates_its_variants(tmp_path: Path) -> None:
    results = study(tmp_path / "out", 1, TINY)

    reports = read_reports(results)
    assert list(reports) == ["pictures"]
    assert reports["pictures"].of("sequential", "A-3").num_users == 10
    assert "| pictures |" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    tuned = open_bundle(results[0].parent / "bundle")
    assert tuned.backbone.sha256 == open_bundle(tmp_path / "out" / "bundle-work" / "text-backbone").backbone.sha256


def test_the_plot_shows_the_hit_rates(tmp_path: Path) -> None:
    plot(reports_of(0.3), tmp_path / "one.png")
    plot(reports_of(0.1), tmp_path / "other.png")

    one, other = (Image.open(tmp_path / f"{name}.png", formats=["PNG"]) for name in ("one", "other"))
    assert one.size == other.size
    assert one.tobytes() != other.tobytes()
