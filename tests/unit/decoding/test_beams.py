from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.beams import NEG_INF, Selection, select


@dataclass(frozen=True)
class Row:
    """Candidates, best first; `None` for an unused entry."""

    scores: list[float | None]
    is_eos: list[bool]
    num_beams: int


@st.composite
def rows_of_one_batch(draw: st.DrawFn) -> list[Row]:
    num_candidates = draw(st.integers(1, 9))
    row = st.builds(
        Row,
        scores=st.tuples(
            st.lists(st.integers(-400, 0), min_size=num_candidates, max_size=num_candidates, unique=True),
            st.integers(0, num_candidates),
        ).map(
            lambda drawn: [
                *sorted(map(float, drawn[0]), reverse=True)[: drawn[1]],
                *[None] * (num_candidates - drawn[1]),
            ]
        ),
        is_eos=st.lists(st.booleans(), min_size=num_candidates, max_size=num_candidates),
        num_beams=st.integers(1, 4),
    )
    return draw(st.lists(row, min_size=1, max_size=3))


@given(rows_of_one_batch())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_best_finish_or_go_on_and_the_rest_does_neither(rows: list[Row]) -> None:
    selection = _select(rows)
    for number, row in enumerate(rows):
        finished: list[int] = []
        next_scores: list[float] = []
        for rank, (score, is_eos) in enumerate(zip(row.scores, row.is_eos, strict=True)):
            if score is None:
                continue
            if is_eos and rank < row.num_beams:
                finished.append(rank)
            elif not is_eos and len(next_scores) < row.num_beams:
                next_scores.append(score)
        assert selection.is_finished[number].nonzero().flatten().tolist() == finished
        alive = selection.next_scores[number] > NEG_INF
        assert selection.next_scores[number, alive].tolist() == next_scores
        chosen = selection.next_index[number, alive]
        assert [row.scores[index] for index in chosen] == next_scores
        assert not any(row.is_eos[index] for index in chosen)


@given(rows_of_one_batch())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_beam_points_to_a_candidate_even_if_it_is_dead(rows: list[Row]) -> None:
    selection = _select(rows)
    assert selection.next_index.shape == (len(rows), max(row.num_beams for row in rows))
    assert int(selection.next_index.min()) >= 0
    assert int(selection.next_index.max()) < len(rows[0].scores)


def _select(rows: list[Row]) -> Selection:
    scores = torch.tensor([[NEG_INF if score is None else score for score in row.scores] for row in rows])
    is_eos = torch.tensor([row.is_eos for row in rows])
    beams_of_rows = torch.tensor([[row.num_beams] for row in rows])
    return select(scores, is_eos, max(row.num_beams for row in rows), beams_of_rows)
