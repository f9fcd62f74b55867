"""The exported files are what the README's commands read."""

from __future__ import annotations

from pathlib import Path

from demo.export import main
from demo.make import RUNS, Places
from model.datasets.faults import Faults
from model.datasets.lines import LinesSource, read_lines
from model.training.config import read_run
from tests.conftest import ROOT


def test_the_exported_purchases_can_be_prepared(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--customers", "20"]) == 0
    source = LinesSource(sequences=tmp_path / "purchases.txt", items=tmp_path / "items.jsonl")
    dataset = read_lines(source, "shop", Faults())
    assert len(dataset.users) == 20
    assert len(dataset.catalog) == 216
    assert None not in dataset.catalog.titles
    shipped = {path.stem for path in (Places(ROOT / "demo" / "bundle").pictures / "garments").iterdir()}
    assert set(dataset.catalog.item_ids) == shipped


def test_the_first_run_starts_from_scratch_beside_the_demonstration() -> None:
    run = read_run(RUNS / "first.toml")
    assert run.file.tune == "from_scratch"
    assert run.out.resolve() == ROOT / "bundles" / "mine"
