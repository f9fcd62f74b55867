"""What is wrong in a run file or a sweep file is named with its file, its line and its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import TrainingError
from model.training.config import read_run
from model.training.preparation import prepare
from model.training.sweep import read_sweep
from model.training.toml_lines import TomlFile
from tests.unit.training.tiny_data import write_run

RUN = """\
out = "bundle"
tune = "from_scratch"
domains = [
    { name = "toys", data = "data" },
    { name = "games", data = "data" },
]

[backbone]
tokenizer = "tokenizer.json"   # a comment
d_model = 16
d_kv = 4
d_ff = 24
num_heads = 3
num_layers = 2
num_decoder_layers = 2

[adapters]
reduction_factor = 0

[images]
tokens = 2
features.games = "pictures"

[prompts]
tasks = { sequential = 1, direct = 0.5 }
templates = [
    "A-3",
    "B-5",
]

[optimiser]
steps = 6
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("tune =", "tun =", 2, "the file has an unknown field `tun`; did you mean `tune`?"),
        (
            '"from_scratch"',
            '"from scratch"',
            2,
            "tune has the unknown value 'from scratch'; did you mean `from_scratch`?",
        ),
        ('"games", data', '"games", dta', 5, "domains[1] has an unknown field `dta`; did you mean `data`?"),
        ('name = "games", ', "", 5, "domains[1] lacks the key `name`"),
        ('name = "games"', 'name = "toys"', 5, "each once"),
        ("d_model = 16", "d_model = 16.5", 10, "backbone.d_model is 16.5; expected `int`, got `float`"),
        ("d_model = 16\n", "", 8, "backbone lacks the key `d_model`"),
        ("[adapters]", "[adapter]", 17, "the file has an unknown field `adapter`; did you mean `adapters`?"),
        (
            'features.games = "pictures"',
            "features.games = 3",
            22,
            "images.features.games is 3; expected `str`, got `int`",
        ),
        ("direct = 0.5", "direct = -1", 25, "prompts.tasks.direct is -1; expected `float` >= 0.0"),
        ("direct = 0.5", "directs = 1", 25, "prompts.tasks has the unknown value 'directs'; did you mean `direct`?"),
        ('"B-5"', '"B-50"', 28, "prompts.templates[1] names the template 'B-50'; choose from A-1"),
        ('"B-5"', "5", 28, "prompts.templates[1] is 5; expected `str`, got `int`"),
        (
            "[prompts]",
            '[prompts]\ndefault_sequential = "B-5"',
            25,
            "prompts.default_sequential names 'B-5', a template of",
        ),
        ("[prompts]", '[prompts]\ndefault_sequential = "A-7"', 25, "choose from A-1, A-2, A-3, A-4, A-5, A-6, A-9"),
        ("[prompts]", '[prompts]\ndefault_direct = "A-3"', 25, "prompts.default_direct names 'A-3'"),
        ("steps = 6", "steps = six", 32, "the file is not TOML: invalid value in 'steps = six'"),
        ("steps = 6", "steps = 6\nsteps = 7", 33, "the file is not TOML: cannot overwrite a value in 'steps = 7'"),
        ("steps = 6", "steps = [6", 32, "the file ends too early in 'steps = [6'"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert RUN.count(old) >= 1
    path = write_run(tmp_path, RUN.replace(old, new, 1))
    with pytest.raises(TrainingError) as caught:
        read_run(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('"games", data = "data"', '"games", data = "absent"', 5, "data of games"),
        ('"tokenizer.json"', '"absent.json"', 9, "backbone.tokenizer is"),
        ("reduction_factor = 0", "reduction_factor = 17", 18, "more than the 16"),
        ('"from_scratch"', '"everything"\nstart = "absent"', 3, "start is"),
    ],
)
def test_what_the_file_names_wrongly_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    text = RUN.replace(old, new, 1).replace('features.games = "pictures"\n', "")
    if "everything" in text:
        text = text[: text.index("[backbone]")] + text[text.index("[adapters]") :]
    path = write_run(tmp_path, text)
    with pytest.raises(TrainingError) as caught:
        prepare(read_run(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_what_a_variant_of_a_sweep_sets_is_named_in_the_sweep_file_and_the_rest_in_the_run_file(tmp_path: Path) -> None:
    run = write_run(tmp_path, RUN)
    sweep = tmp_path / "sweep.toml"
    text = (
        'base = "run.toml"\nout = "sweep"\n[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nset = {adapters = {X}}\n'
    )
    for given, place, message in (
        ("reduction_factr = 4", f"{sweep}:7: ", "did you mean `reduction_factor`?"),
        ("reduction_factor = -4", f"{sweep}:7: ", "adapters.reduction_factor is -4"),
    ):
        sweep.write_text(text.replace("X", given))
        with pytest.raises(TrainingError) as caught:
            read_sweep(sweep)
        assert str(caught.value).startswith(place)
        assert message in str(caught.value)
    sweep.write_text(text.replace("X", "reduction_factor = 4"))
    run.write_text(RUN.replace("steps = 6", "steps = 0"))
    with pytest.raises(TrainingError, match=r"run\.toml:32: optimiser\.steps is 0"):
        read_sweep(sweep)
    sweep.write_text(text.replace("X", "").replace('name = "b"', 'nam = "b"'))
    with pytest.raises(
        TrainingError, match=r"sweep\.toml:5: variants\[1\] lacks the key `name`|sweep\.toml:6: .*`nam`"
    ):
        read_sweep(sweep)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b'out = "a"\nname = "\xff"\n')
    with pytest.raises(TrainingError, match=r"run\.toml:2: the file is not TOML: it is not UTF-8"):
        TomlFile.read(tmp_path / "run.toml")
