"""Run files that do not hold together are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import TrainingError
from model.training.config import read_run
from model.training.preparation import prepare
from model.training.toml_lines import TomlFile
from tests.unit.training.tiny_data import ADAPTERS, FROM_SCRATCH, write_run


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('out = "bundle"', "", r"`out`"),
        ("steps = 6", "steps = 0", r"optimiser\.steps is 0; expected `int` >= 1"),
        (
            "steps = 6",
            "steps = 6\nlearning_rate = inf",
            r":\d+: optimiser\.learning_rate is inf; give a finite",
        ),
        ('name = "toys"', 'name = "to ys"', r":\d+: domains\[0\]\.name: 'to ys' cannot name a domain"),
        ("steps = 6", "steps = 6\nweight_decay = nan", r"optimiser\.weight_decay is nan; give a finite number"),
        (
            "steps = 6",
            "steps = 6\nschedule_steps = 5",
            r"schedule_steps is 5, fewer than the 6 steps of the run; set as",
        ),
        ('out = "bundle"', 'seed = -1\nout = "bundle"', r"seed is -1; expected `int` >= 0"),
        ('out = "bundle"', 'seed = 4294967296\nout = "bundle"', r"seed is 4294967296; expected `int`"),
        ("steps = 6", "steps = 6\nstep = 7", r"unknown field `step`"),
        ("tokens = 2", 'tokens = "2"', r"images\.tokens is '2'; expected `int`, got `str`"),
        ("[images]", "[prompts.tasks]\nranking = 1\n\n[images]", r"ranking"),
        ("max_tokens = 128", 'max_tokens = 128\ntemplates = ["A-10"]', r"template 'A-10'; choose from A-1"),
        ("max_tokens = 128", "max_tokens = 128\ntasks = {sequential = 0}", r"shares in prompts\.tasks are 0"),
        ("reduction_factor = 4", "reduction_factor = 0", r"no adapters to tune"),
        ('name = "toys"', 'name = "toys"\ndata = "data"\n[[domains]]\nname = "toys"', r"each once"),
        ('out = "bundle"', 'tune = "everything"\nout = "bundle"', r"another bundle as out"),
        ('out = "bundle"', 'tune = "from_scratch"\nout = "bundle"', r"only 'from_scratch' has a \[backbone\]"),
        ('out = "bundle"', "out = bundle", r"is not TOML"),
    ],
)
def test_a_broken_run_file_is_refused_naming_the_key_and_the_rule(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in ADAPTERS
    with pytest.raises(TrainingError, match=message) as caught:
        read_run(write_run(tmp_path, ADAPTERS.replace(old, new, 1)))
    assert "run.toml" in str(caught.value)


def test_a_run_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.toml cannot be read"):
        read_run(tmp_path / "absent.toml")


def test_paths_are_taken_from_the_run_files_folder(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, ADAPTERS))
    assert run.out == tmp_path / "bundle"
    assert run.start == tmp_path / "bundle"
    assert run.work == tmp_path / "work" / "run"


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (FROM_SCRATCH, 'tokenizer = "tokenizer.json"', 'tokenizer = "none.json"', r"none\.json, which does not exist"),
        (FROM_SCRATCH, "reduction_factor = 0", "reduction_factor = 17", r"more than the 16"),
        (FROM_SCRATCH, 'data = "data"', 'data = "nothing"', r"nothing has no dataset\.json"),
    ],
)
def test_a_run_that_cannot_be_done_is_refused_before_any_work(
    tmp_path: Path, text: str, old: str, new: str, message: str
) -> None:
    assert old in text
    with pytest.raises(Exception, match=message):
        prepare(read_run(write_run(tmp_path, text.replace(old, new, 1))))
    assert not (tmp_path / "bundle").exists()


def test_pictures_without_embeddings_are_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, FROM_SCRATCH)
    (tmp_path / "data" / "features.safetensors").unlink()
    message = r"no image embeddings, which \[images\] needs; give images\.features\.toys, or leave \[images\] out"
    with pytest.raises(TrainingError, match=message):
        prepare(read_run(path))


def test_a_value_of_several_lines_stands_where_its_key_does(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('a = 1\nb = """\ntext\n"""\nc = [\n1,\n]\n')
    file = TomlFile.read(path)
    assert [file.place([key]) for key in "abc"] == [f"{path}:1", f"{path}:2", f"{path}:5"]
