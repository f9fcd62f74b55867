"""A sweep trains and evaluates its variants into one table and one plot."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import ExistsError, TrainingError
from model.evaluation.report import Report
from model.training.config import read_run
from model.training.sweep import read_sweep, run_sweep
from model.training.tuning import tune
from tests.unit.training.tiny_data import ADAPTERS, FROM_SCRATCH, tiny_dataset, write_run

SWEEP = """
base = "adapters.toml"
out = "sweep"
num_users = 10
baselines = ["popularity"]

[[variants]]
name = "narrow"
set = { adapters = { reduction_factor = 8 } }

[[variants]]
name = "text"
without = ["images"]

[[variants]]
name = "everything"
set = { tune = "everything" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tune(read_run(write_run(tmp_path, FROM_SCRATCH, name="scratch")))
    write_run(tmp_path, ADAPTERS, name="adapters")
    (tmp_path / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


def test_variants_differ_from_their_base_in_what_they_set_alone(folder: Path) -> None:
    base = read_run(folder / "adapters.toml").file
    narrow, text, everything = (run.file for run in read_sweep(folder / "sweep.toml").runs)
    assert narrow.adapters.reduction_factor == 8
    assert narrow.adapters.in_cross_attention == base.adapters.in_cross_attention
    assert narrow.optimiser == text.optimiser == everything.optimiser == base.optimiser
    assert (narrow.images, text.images) == (base.images, None)
    assert everything.tune == "everything"


def test_a_sweep_ends_in_one_table_and_one_plot_and_is_not_done_twice(folder: Path) -> None:
    sweep = read_sweep(folder / "sweep.toml")
    run_sweep(sweep, num_threads=1)
    table = sweep.table.read_text(encoding="utf-8")
    for name in ("narrow", "text", "everything", "popularity"):
        assert name in table
    assert "| 100.0% |" in table
    assert sweep.plot.read_bytes().startswith(b"\x89PNG")

    before = (sweep.runs[0].out / "manifest.json").stat().st_mtime_ns
    run_sweep(sweep, num_threads=1)
    assert (sweep.runs[0].out / "manifest.json").stat().st_mtime_ns == before

    (folder / "sweep.toml").write_text(SWEEP.replace("reduction_factor = 8", "reduction_factor = 2"), encoding="utf-8")
    with pytest.raises(ExistsError, match=r"has narrow, trained with other settings than now; .* --replace"):
        run_sweep(read_sweep(folder / "sweep.toml"), num_threads=1)
    text = (sweep.runs[1].out / "manifest.json").stat().st_mtime_ns
    run_sweep(read_sweep(folder / "sweep.toml"), num_threads=1, replace=True)
    assert (sweep.runs[0].out / "manifest.json").stat().st_mtime_ns != before
    assert (sweep.runs[1].out / "manifest.json").stat().st_mtime_ns == text


def test_a_sweep_is_evaluated_on_the_data_that_it_names(folder: Path) -> None:
    tiny_dataset("later").write(folder / "later")
    one = SWEEP.partition("[[variants]]")[0] + '[held_out]\ntoys = "later"\n[[variants]]\nname = "as-it-is"\n'
    (folder / "sweep.toml").write_text(one, encoding="utf-8")

    run_sweep(read_sweep(folder / "sweep.toml"), num_threads=1)

    assert Report.read(folder / "sweep" / "as-it-is" / "as-it-is.json").dataset == "later"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "num_users = 10",
            'num_users = 10\nheld_out = { shoes = "." }',
            "held_out names shoes, which no run has as a domain",
        ),
        ('name = "text"', 'name = "narrow"', "each once"),
        ("reduction_factor = 8", "reduction_factor = -1", r"reduction_factor"),
        ('base = "adapters.toml"', 'base = "absent.toml"', r"absent\.toml cannot be read"),
        ('base = "adapters.toml"', "", "base"),
    ],
)
def test_a_broken_sweep_file_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "sweep.toml").write_text(SWEEP.replace(old, new), encoding="utf-8")
    with pytest.raises(TrainingError, match=message):
        read_sweep(folder / "sweep.toml")
