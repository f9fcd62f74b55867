"""Beams are reduced under load, as far as the operator allows, and the answer says so."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from model.decoding.eligibility import Eligibility, LeafMask
from model.engine.plans import RankingPlan
from service.answering.beam_reduction import BeamReduction, BeamTable
from service.errors import BeamTableError
from tests.service.plans import search_named

TABLE = BeamTable.model_validate(
    {
        "beams": [
            {"num_beams": 5, "latency_ms": 10.0, "recall": 0.8},
            {"num_beams": 20, "latency_ms": 40.0, "recall": 1.0},
            {"num_beams": 10, "latency_ms": 20.0, "recall": 0.95},
        ]
    }
)


def plan(*, k: int = 3, num_beams: int = 20, certified: bool = False) -> RankingPlan:
    return RankingPlan(
        slot=0,
        task="sequential",
        template="A-3",
        prompts=search_named(1).prompts,
        eligibility=Eligibility.of(LeafMask.of(np.ones(4, dtype=np.bool_))),
        k=k,
        num_beams=num_beams,
        length_penalty=0.0,
        certified=certified,
    )


def reduced(waiting_s: float, asked: RankingPlan, *, min_beams: int = 5) -> RankingPlan:
    """With a time budget of ten seconds, of which searches with all beams may wait three."""
    return BeamReduction(TABLE, min_beams, lambda: waiting_s).reduce(asked, time.monotonic() + 10)


@pytest.mark.parametrize(("waiting_s", "expected"), [(0.0, 20), (2.9, 20), (3.5, 10), (5.5, 10), (6.5, 5), (1000.0, 5)])
def test_the_widest_search_is_taken_that_lets_what_waits_be_done_in_time(waiting_s: float, expected: int) -> None:
    narrowed = reduced(waiting_s, plan())

    assert narrowed.num_beams == expected
    assert [note.kind for note in narrowed.degraded] == ["beams_reduced"] * (expected < 20)


def test_the_note_says_what_was_lost() -> None:
    (note,) = reduced(5.0, plan()).degraded

    assert note.detail.startswith("searched with 10 beams instead of 20 because many requests are waiting")
    assert "95.0%" in note.detail


@pytest.mark.parametrize(
    ("asked", "min_beams", "expected"),
    [
        (plan(certified=True), 5, 20),
        (plan(k=12), 5, 20),
        (plan(k=7), 5, 10),
        (plan(), 8, 10),
        (plan(num_beams=10), 10, 10),
    ],
)
def test_no_search_is_narrowed_below_what_it_needs(asked: RankingPlan, min_beams: int, expected: int) -> None:
    assert reduced(1000.0, asked, min_beams=min_beams).num_beams == expected


@pytest.mark.parametrize("content", [None, "no json", "{}", '{"beams": []}', '{"beams": [{"num_beams": 0}]}'])
def test_a_table_that_cannot_be_read_is_refused_with_its_form(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "beams.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(BeamTableError, match=r"beams\.json is not a table of beams"):
        BeamTable.read(path)


def test_a_table_is_read_whatever_else_it_tells(tmp_path: Path) -> None:
    path = tmp_path / "beams.json"
    row = {"num_beams": 20, "latency_ms": 1.5, "recall": 0.5, "exact": 0.1}
    path.write_text(json.dumps({"device": "cpu", "beams": [row]}), encoding="utf-8")

    assert BeamTable.read(path).latency_ms(40) == 3.0
