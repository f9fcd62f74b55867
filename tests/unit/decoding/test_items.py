"""Constrained search against brute force over small catalogs, where every log-probability is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from model.decoding.items import EXACTNESS_MARGIN
from tests.unit.decoding.searches import Batch, Request, batches
from tests.unit.decoding.tables import Path, PathStepper, nodes_by_level, random_table

SCORE_TOLERANCE = 1e-4
FLOAT32_NOISE = 1e-6  # of sums that a negative length penalty multiplies
TRIES = settings(max_examples=40, deadline=None, derandomize=True)


@given(batches())
@TRIES
def test_items_are_eligible_unique_ordered_and_scored_as_by_brute_force(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(), strict=True):
        assert all(request.is_eligible(row) for row in found.rows)
        assert len(set(found.rows)) == len(found.rows) <= request.wanted
        assert found.scores == sorted(found.scores, reverse=True)
        expected = batch.scores(request)[found.rows].tolist()
        assert found.scores == pytest.approx(expected, abs=SCORE_TOLERANCE, rel=FLOAT32_NOISE)


@given(batches())
@TRIES
def test_an_answer_is_empty_only_if_nothing_is_eligible(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(), strict=True):
        assert bool(found.rows) == bool(batch.best(request))


@given(batches())
@TRIES
def test_the_exact_prefix_is_the_true_top(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(), strict=True):
        best = batch.best(request)[: found.exact_prefix]
        assert found.rows[: found.exact_prefix] == best


@given(batches())
@TRIES
def test_with_a_beam_for_every_node_the_whole_ranking_is_the_true_one(batch: Batch) -> None:
    wide = Batch(batch.catalogs, tuple(_with_a_beam_for_every_node(batch, request) for request in batch.requests))
    for request, found in zip(wide.requests, wide.search(prunes_early=False), strict=True):
        assert found.rows == wide.best(request)[: request.wanted]
        assert found.exact_prefix == len(found.rows)


@given(batches(max_requests=4))
@TRIES
def test_a_batch_gives_every_row_the_answer_that_it_gets_alone(batch: Batch) -> None:
    for request, found in zip(batch.requests, batch.search(prunes_early=False), strict=True):
        (alone,) = batch.alone(request).search(prunes_early=False)
        assert (found.rows, found.exact_prefix) == (alone.rows, alone.exact_prefix)
        assert found.scores == pytest.approx(alone.scores, abs=1e-5)


@given(batches())
@TRIES
def test_dropping_hopeless_beams_changes_nothing(batch: Batch) -> None:
    for dropped, kept in zip(batch.search(prunes_early=True), batch.search(prunes_early=False), strict=True):
        assert dropped.rows == kept.rows
        assert dropped.scores == pytest.approx(kept.scores, abs=1e-6)
        certain = [score for score in kept.scores if score > kept.scores[-1] + EXACTNESS_MARGIN]
        assert dropped.exact_prefix <= kept.exact_prefix
        assert min(dropped.exact_prefix, len(certain)) == min(kept.exact_prefix, len(certain))


def test_a_search_stops_when_no_beam_can_improve_the_answer() -> None:
    def certain(prefix: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        logits = np.zeros(7)
        logits[2 if not prefix else 1] = 20.0
        return logits

    items: list[Path] = [(2,), (2, 3, 4), (3, 4, 5, 6), (4, 4)]
    request = _request(items, num_beams=1)
    request = replace(request, table=certain)
    assert _num_steps(items, request, prunes_early=True) == 2
    assert _num_steps(items, request, prunes_early=False) == 5


def test_a_trie_of_one_item_is_answered_by_it_with_certainty() -> None:
    items: list[Path] = [(3, 2)]
    (found,) = Batch((items,), (_request(items, num_beams=20),)).search()
    assert (found.rows, found.exact_prefix) == ([0], 1)


def test_a_smaller_catalog_beside_a_larger_one_is_searched_within_its_own_leaves() -> None:
    large: list[Path] = [(first, second) for first in (2, 3, 4, 5) for second in (2, 3, 4, 5, 6)]
    small: list[Path] = [(2, 3), (2,), (4, 5)]
    batch = Batch((large, small), (replace(_request(small, num_beams=4), catalog=1),))
    (found,) = batch.search()
    assert found.rows == batch.best(batch.requests[0])


def test_a_short_item_that_was_cut_off_is_not_overlooked_under_a_negative_length_penalty() -> None:
    """Its sum is just below the best pruned prefix's, its length smaller: the final score is better."""

    def logits_of(prefix: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        probabilities = {(): [0, 0, 1, 0, 0, 0, 0], (2,): [0, 0.10, 0, 0.3, 0.2, 0.19, 0.21]}
        certain = [0.0, 1, 0, 0, 0, 0, 0]
        return np.log(np.array(probabilities.get(prefix, certain)) + 1e-12)

    items: list[Path] = [(2,), (2, 3), (2, 4), (2, 5), (2, 6)]
    request = replace(_request(items, num_beams=1), table=logits_of, length_penalty=-2.0)
    batch = Batch((items,), (request,))
    assert batch.best(request)[0] == 0
    (found,) = batch.search()
    assert (found.rows, found.exact_prefix) == ([1], 0)


def test_a_long_item_that_was_cut_off_is_not_overlooked_under_a_positive_length_penalty() -> None:
    """One candidate finishes and one goes on; the third, which would win, is not among the best 2·K."""

    def logits_of(prefix: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        probabilities = {
            (): [0, 0, 1, 0, 0, 0, 0],
            (2,): [0, 0.40, 0, 0.30, 0.29, 0, 0.01],
            (2, 3): [0, 0.5, 0, 0, 0, 0, 0.5],
        }
        certain = [0.0, 1, 0, 0, 0, 0, 0]
        return np.log(np.array(probabilities.get(prefix, certain)) + 1e-12)

    items: list[Path] = [(2,), (2, 3), (2, 4)]
    request = replace(_request(items, num_beams=1), table=logits_of, length_penalty=3.0)
    batch = Batch((items,), (request,))
    assert batch.best(request) == [2, 1, 0]
    (found,) = batch.search()
    assert (found.rows, found.exact_prefix) == ([1], 0)


def _with_a_beam_for_every_node(batch: Batch, request: Request) -> Request:
    num_beams = max(nodes_by_level(batch.catalogs[request.catalog]))
    return replace(request, num_beams=num_beams, wanted=num_beams)


def _request(items: list[Path], *, num_beams: int) -> Request:
    return Request(
        catalog=0,
        table=random_table(0, 7),
        num_beams=num_beams,
        wanted=num_beams,
        length_penalty=0.0,
        active=(True,) * len(items),
        exclude=frozenset(),
        include=None,
    )


def _num_steps(items: list[Path], request: Request, *, prunes_early: bool) -> int:
    stepper = PathStepper([request.table])
    Batch((items,), (request,)).search(prunes_early=prunes_early, stepper=stepper)
    return stepper.num_steps
