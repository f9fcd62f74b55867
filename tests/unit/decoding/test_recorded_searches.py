"""Recorded searches of Hugging Face's library over tries. They stop as soon as there are K items; ours does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

from tests.unit.decoding.searches import Batch, Request
from tests.unit.decoding.tables import EOS, LogitsOf, Path, item_scores, nodes_by_level

NAMES = (
    "trie_60_beam5",
    "trie_200_beam20",
    "trie_len1_30items_beam20",
    "trie_fewer_items_than_beams",
    "trie_exactly_as_many_items_as_beams",
    "trie_20items_beam20",
    "trie_100items_beam20",
)
LIBRARYS_LENGTH_PENALTY = 1.0
PHANTOM = -1e6  # the library's score of a row that is no item


@dataclass(frozen=True)
class Recorded:
    """A search of the library: logits depend on the row, the step and the token before."""

    unit: dict[str, Any]

    @property
    def items(self) -> list[Path]:
        return [tuple(tokens[:-1] if tokens[-1] == EOS else tokens) for tokens in self.unit["items"]]

    def table(self, row: int) -> LogitsOf:
        logits = np.array(self.unit["table"][row])
        return lambda prefix: logits[len(prefix), prefix[-1] if prefix else self.unit["start"]]

    def batch(self, length_penalty: float) -> Batch:
        requests = [
            Request(
                catalog=0,
                table=self.table(row),
                num_beams=self.unit["num_beams"],
                wanted=self.unit["num_beams"],
                length_penalty=length_penalty,
                active=(True,) * len(self.items),
                exclude=frozenset(),
                include=None,
            )
            for row in range(self.unit["batch"])
        ]
        return Batch((self.items,), tuple(requests))

    def answers(self, row: int) -> list[tuple[Path, float]]:
        """The items that the library returned for a row."""
        num_beams = self.unit["num_beams"]
        part = slice(row * num_beams, (row + 1) * num_beams)
        answers = zip(self.unit["sequences"][part], self.unit["scores"][part], strict=True)
        return [(tuple(tokens[1 : tokens.index(EOS)]), score) for tokens, score in answers if score > PHANTOM]


@pytest.fixture(params=NAMES)
def recorded(request: pytest.FixtureRequest, shared: FilePath) -> Recorded:
    units = json.loads((shared / "golden/common/beam_unit.json").read_text())
    assert {unit["name"] for unit in units if unit["items"] is not None} == set(NAMES)
    return Recorded(next(unit for unit in units if unit["name"] == request.param))


def test_the_library_scored_its_items_as_brute_force_does(recorded: Recorded) -> None:
    for row in range(recorded.unit["batch"]):
        items, scores = zip(*recorded.answers(row), strict=True)
        assert set(items) <= set(recorded.items)
        assert list(scores) == pytest.approx(
            item_scores(recorded.table(row), items, LIBRARYS_LENGTH_PENALTY).tolist(), abs=1e-4
        )


def test_no_item_of_ours_is_worse_than_the_librarys_of_the_same_rank(recorded: Recorded) -> None:
    for row, found in enumerate(recorded.batch(LIBRARYS_LENGTH_PENALTY).search()):
        theirs = [score for _, score in recorded.answers(row)]
        assert len(found.scores) >= len(theirs)
        assert all(ours > score - 1e-4 for ours, score in zip(found.scores, theirs, strict=False))


@pytest.mark.parametrize("length_penalty", [0.0, LIBRARYS_LENGTH_PENALTY, -1.0])
def test_scores_and_exact_prefix_are_those_of_brute_force(recorded: Recorded, length_penalty: float) -> None:
    batch = recorded.batch(length_penalty)
    is_wide = recorded.unit["num_beams"] >= max(nodes_by_level(recorded.items))
    for request, found in zip(batch.requests, batch.search(), strict=True):
        scores, best = batch.scores(request), batch.best(request)
        assert found.scores == pytest.approx(scores[found.rows].tolist(), abs=1e-4)
        assert found.rows[: found.exact_prefix] == best[: found.exact_prefix]
        if is_wide:
            assert found.rows == best[: request.num_beams]
