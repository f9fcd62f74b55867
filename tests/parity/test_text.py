"""Free text against the library's greedy and beam search, with and without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.decoding.beams import SpecialIds
from model.decoding.text import GREEDY, BeamOptions, Hypothesis
from model.engine.stepper import NetworkStepper
from tests.parity.golden import SCORE_TOLERANCE, Golden
from tests.texts import decode_one_beam, search_text

SPECIAL = SpecialIds(start=0, eos=1)
DEFAULT_MAX_LENGTH = 20
PHANTOM = -1e6


class TableStepper:
    """One row's logits from a table by step and the token before."""

    def __init__(self, table: list[Any]) -> None:
        self._table = torch.tensor(table)  # [T, V, V]
        self._length = 0

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        logits = self._table[self._length, tokens]
        self._length += 1
        return logits


def _unit_searches() -> list[str]:
    return [
        "free_early", "free_late", "free_early_eos", "free_late_eos", "len_penalty_0.5", "len_penalty_2",
        "no_eos_max_length", "batch3", "batch3_late", "beam20",
    ]  # fmt: skip


@pytest.mark.parametrize("name", _unit_searches())
def test_a_text_search_without_a_model_equals_the_librarys(name: str, shared: Path) -> None:
    recorded = json.loads((shared / "golden/common/beam_unit.json").read_text())
    assert [unit["name"] for unit in recorded if unit["items"] is None] == _unit_searches()
    unit = next(unit for unit in recorded if unit["name"] == name)
    options = BeamOptions(
        num_beams=unit["num_beams"],
        max_new_tokens=unit["kwargs"]["max_length"] - 1,
        length_penalty=unit["kwargs"].get("length_penalty", 1.0),
        early_stopping=unit["kwargs"]["early_stopping"],
    )
    assert len(unit["table"]) == unit["batch"]
    best = [hypothesis for row in unit["table"] for hypothesis in search_text(TableStepper(row), options, SPECIAL)]
    assert len(best) == len(unit["sequences"]) == unit["batch"] * unit["num_beams"]
    for hypothesis, sequence, score in zip(best, unit["sequences"], unit["scores"], strict=True):
        assert score > PHANTOM
        assert _as_library(hypothesis, len(sequence)) == sequence
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


def test_greedy_texts_equal_the_recorded_ones(golden: Golden) -> None:
    recorded = golden.tensors("generation")
    compared = 0
    for case in golden.cases.values():
        expected = recorded[f"{case.name}/greedy_default/sequences"][0].tolist()
        stepper = _stepper(golden, case.name, num_beams=1, max_length=DEFAULT_MAX_LENGTH)
        (text,) = decode_one_beam(stepper, [GREEDY], [DEFAULT_MAX_LENGTH - 1], SPECIAL)
        assert _as_library(text, len(expected)) == expected, case.name
        compared += 1
    assert compared == 51


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("beam4_default", BeamOptions(num_beams=4, max_new_tokens=19, early_stopping=False)),
        ("beam4_early", BeamOptions(num_beams=4, max_new_tokens=19, early_stopping=True)),
        ("beam20", BeamOptions(num_beams=20, max_new_tokens=49, early_stopping=True)),
    ],
)
def test_beam_searched_texts_equal_the_recorded_ones(golden: Golden, mode: str, options: BeamOptions) -> None:
    recorded = golden.tensors("generation")
    names = [name for name in golden.cases if f"{name}/{mode}/sequences" in recorded.names]
    is_narrow = options.num_beams == 4
    assert len(names) == (12 if is_narrow else 39)
    for name in names if is_narrow else names[::6]:  # the wide ones run all 49 steps, half a second each
        stepper = _stepper(golden, name, num_beams=options.num_beams, max_length=options.max_new_tokens)
        found = search_text(stepper, options, SPECIAL)
        expected = recorded[f"{name}/{mode}/sequences"]
        scores = recorded[f"{name}/{mode}/scores"].numpy()
        assert [_as_library(text, expected.shape[1]) for text in found] == expected.tolist(), name
        assert np.abs(np.array([text.score for text in found]) - scores).max() < SCORE_TOLERANCE, name


def _stepper(golden: Golden, name: str, *, num_beams: int, max_length: int) -> NetworkStepper:
    batch = golden.batch(golden.cases[name])
    memory = golden.network.memorise(batch)
    return NetworkStepper(golden.network, memory, batch.rows, num_beams=num_beams, max_length=max_length)


def _as_library(hypothesis: Hypothesis, length: int) -> list[int]:
    """As the library writes it: start token first, `</s>` if there is one, padded with 0."""
    tokens = [SPECIAL.start, *hypothesis.token_ids, *([SPECIAL.eos] if hypothesis.is_complete else [])]
    return tokens + [0] * (length - len(tokens))
