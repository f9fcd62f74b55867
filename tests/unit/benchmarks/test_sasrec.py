"""The benchmark of SASRec: batches, loss, and the measuring of its lists, on tiny data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks.sasrec import estimates_of, held_out_with, lists_of, write_histories
from benchmarks.sasrec_batches import BatchesByLength, loss_of_targets, without_padding
from model.evaluation.held_out import HeldOut, Rows
from tests.unit.evaluation.datasets import toys_dataset

NUM_ITEMS = 12
HISTORIES = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10]]  # the last ones are the targets


def asked(*, excludes_history: bool) -> HeldOut:
    return held_out_with(toys_dataset(HISTORIES, num_items=NUM_ITEMS), excludes_history=excludes_history)


def found(*lists: list[int]) -> Rows:
    rows = np.full((len(lists), 10), -1)
    for row, items in zip(rows, lists, strict=True):
        row[: len(items)] = items
    return rows


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(2, 50), min_size=1, max_size=300), batch_size=st.integers(1, 8))
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int) -> None:
    batches = BatchesByLength(lengths, batch_size)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == len(list(batches))


def test_batches_have_histories_of_like_length_and_come_in_another_order_each_time() -> None:
    lengths = [2, 9] * 40
    batches = BatchesByLength(lengths, 10)
    first, second = list(batches), list(batches)
    assert all(len({lengths[row] for row in batch}) == 1 for batch in first)
    assert first != second


def test_only_places_that_are_empty_in_all_sequences_are_left_out() -> None:
    batch = {
        "x": torch.tensor([[0, 0, 3, 4], [0, 0, 0, 5]]),
        "y": torch.tensor([[0, 0, 4, 6], [0, 0, 0, 7]]),
        "yw": torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1]]),
    }
    left = without_padding(batch)
    assert left["x"].tolist() == [[3, 4], [0, 5]]
    assert left["y"].tolist() == [[4, 6], [0, 7]]
    assert left["yw"].tolist() == [[1, 1], [0, 1]]


def test_the_loss_is_that_of_all_places_without_the_empty_ones() -> None:
    torch.manual_seed(0)
    encoded, items = torch.randn(3, 5, 4), torch.randn(7, 4)
    targets = torch.tensor([[0, 0, 1, 2, 3], [0, 4, 5, 6, 1], [0, 0, 0, 0, 2]])
    everywhere = F.cross_entropy((encoded @ items.T).transpose(1, 2), targets, ignore_index=0)
    torch.testing.assert_close(loss_of_targets(encoded, items, targets), everywhere)


def test_training_never_sees_the_targets(tmp_path: Path) -> None:
    write_histories(tmp_path / "given.npz", asked(excludes_history=False))
    written = np.load(tmp_path / "given.npz")
    histories = [part.tolist() for part in np.split(written["items"], written["offsets"][1:-1])]
    assert histories == [history[:-1] for history in HISTORIES]


def test_hits_and_gains_are_those_of_the_places_of_the_targets() -> None:
    held_out = asked(excludes_history=True)
    lists = lists_of(found([3, 11], [0, 1, 6], [0, 1, 2, 3, 4, 5, 10]), held_out)
    metrics = estimates_of(lists, held_out)
    assert metrics["hr@5"].value == pytest.approx(2 / 3)
    assert metrics["hr@10"].value == 1
    assert metrics["ndcg@10"].value == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_a_user_without_a_list_counts_as_a_miss() -> None:
    held_out = asked(excludes_history=False)
    metrics = estimates_of(lists_of(found([3], [], []), held_out), held_out)
    assert metrics["hr@10"].value == pytest.approx(1 / 3)


def test_items_of_the_history_are_rejected_where_they_are_to_be_excluded() -> None:
    lists = found([3, 2], [6], [10])
    assert lists_of(lists, asked(excludes_history=False))[0].tolist() == [3, 2]
    with pytest.raises(ValueError, match=r"user 0 got \[3, 2\]: an item is there twice, or in the history"):
        lists_of(lists, asked(excludes_history=True))


def test_an_item_that_is_there_twice_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"user 1 got \[6, 6\]"):
        lists_of(found([3], [6, 6], [10]), asked(excludes_history=False))


@pytest.mark.filterwarnings("ignore")  # the library and what it stands on warn of each other
def test_sasrec_learns_which_item_follows_which_and_excludes_histories() -> None:
    pytest.importorskip("rectools", reason="RecTools needs an environment of its own")
    from benchmarks.sasrec_worker import Training

    torch.manual_seed(0)
    histories = [np.arange(start, start + 5) % 9 for start in range(90)]
    training = Training(histories)
    while len(training.curve) < 40:
        training.fit(seconds=training.used_s + 1e-9)  # one more epoch
    lists = training.rankings(histories)
    following = np.array([(history[-1] + 1) % 9 for history in histories])
    assert np.mean(lists["excluded"][:, 0] == following) > 0.8
    assert (lists["kept"][:, :9] >= 0).all()  # nine items were seen
    assert (lists["excluded"][:, :4] >= 0).all()
    assert (lists["excluded"][:, 4:] == -1).all()
    assert training.described()["steps"] == len(training.curve)  # one batch an epoch
