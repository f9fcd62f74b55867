"""A run that failed blocks nobody unless it has checkpoints, and nothing is lost when a new run fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.bundle.bundle import open_bundle
from model.bundle.manifest import read_manifest
from model.errors import ExistsError, TrainingError
from model.training.config import read_run
from model.training.tuning import tune
from tests.unit.training.tiny_data import ADAPTERS, FROM_SCRATCH, write_run


def killed_at(step: int) -> Callable[[str, int, int | None], None]:
    def kill(what: str, done: int, total: int | None) -> None:
        if done == step:
            raise KeyboardInterrupt

    return kill


def test_a_run_that_failed_before_any_work_does_not_block_the_mended_one(tmp_path: Path) -> None:
    broken = FROM_SCRATCH.replace('data = "data"', 'data = "absent"')
    with pytest.raises(TrainingError, match="absent has no dataset"):
        tune(read_run(write_run(tmp_path, broken)))
    assert not (tmp_path / "work").exists()

    assert tune(read_run(write_run(tmp_path, FROM_SCRATCH))).measures.steps == 6


def test_a_run_that_failed_before_its_first_checkpoint_does_not_block_the_mended_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(read_run(write_run(tmp_path, FROM_SCRATCH)), progress=killed_at(1))
    assert (tmp_path / "work" / "run" / "run.json").exists()

    mended = FROM_SCRATCH.replace("batch_size = 4", "batch_size = 2")
    assert tune(read_run(write_run(tmp_path, mended))).measures.steps == 6


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_resumed_from(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, FROM_SCRATCH))
    with pytest.raises(KeyboardInterrupt):
        tune(run, progress=killed_at(5))
    (run.work / "checkpoint-6").mkdir()
    (run.work / "checkpoint-6" / "trainer_state.json").write_text("{")

    assert tune(run).measures.steps == 2


def test_checkpoints_whose_settings_cannot_be_read_are_kept_until_somebody_discards_them(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, FROM_SCRATCH))
    with pytest.raises(KeyboardInterrupt):
        tune(run, progress=killed_at(5))
    (run.work / "run.json").write_text("")

    with pytest.raises(TrainingError, match="--restart"):
        tune(run)
    assert (run.work / "checkpoint-4").is_dir()
    assert tune(run, restart=True).measures.steps == 6


def test_a_result_that_could_not_be_written_is_written_by_the_next_start_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_run(tmp_path, FROM_SCRATCH))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("model.bundle.writer.publish", fail)
        with pytest.raises(OSError, match="No space left"):
            tune(run)
    assert not run.out.exists()
    assert tune(run).measures.steps == 0
    assert set(open_bundle(run.out).domains) == {"toys"}


@pytest.mark.parametrize("again", [FROM_SCRATCH, ADAPTERS], ids=["whole bundle", "domain"])
def test_a_result_is_replaced_only_where_that_is_allowed_and_never_by_a_run_that_failed(
    tmp_path: Path, again: str
) -> None:
    first = read_run(write_run(tmp_path, FROM_SCRATCH.replace("steps = 6", "steps = 2")))
    before = tune(first).bundle_hash
    run = read_run(write_run(tmp_path, again, name="again"))

    with pytest.raises(ExistsError, match=r"already.*toys|toys already") as refused:
        tune(run)
    assert "--replace" in str(refused.value)
    assert not run.work.exists()
    with pytest.raises(KeyboardInterrupt):
        tune(run, replace=True, progress=killed_at(5))
    assert read_manifest(run.out).hash == before

    after = tune(run, replace=True).bundle_hash
    assert after == open_bundle(run.out).hash != before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.toml", "bundle", "data", "run.toml", "tokenizer.json", "work",
    ]  # fmt: skip


def test_a_bundle_that_appeared_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, FROM_SCRATCH))
    other = read_run(write_run(tmp_path, FROM_SCRATCH.replace("steps = 6", "steps = 2"), name="other"))
    found: list[str | None] = []

    def interfere(what: str, done: int, total: int | None) -> None:
        if done == 5 and not found:
            found.append(tune(other).bundle_hash)

    with pytest.raises(ExistsError):
        tune(run, progress=interfere)
    assert read_manifest(run.out).hash == found[0]
    assert json.loads((run.work / "run.json").read_text())["out"] == "bundle"


def test_what_is_no_bundle_is_refused_before_any_work(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, FROM_SCRATCH))
    run.out.mkdir()
    (run.out / "letters.txt").write_text("dear")

    with pytest.raises(TrainingError, match="something other than a bundle"):
        tune(run, replace=True)
    assert not run.work.exists()
