from __future__ import annotations

from pathlib import Path

from model.datasets.dataset import Dataset
from model.datasets.faults import Faults
from model.datasets.lines import LinesSource, read_lines
from model.datasets.summary import Lengths, ReviewCounts, summarise
from model.datasets.vip5_folder import read_vip5_folder
from tests.unit.datasets.sources import vip5_folder, write_lines


def read(folder: Path) -> Dataset:
    return read_vip5_folder(vip5_folder(folder), "toys", Faults())


def test_a_summary_counts_everything_there_is(tmp_path: Path) -> None:
    summary = summarise(read(tmp_path))
    assert (summary.num_users, summary.num_named_users) == (3, 3)
    assert (summary.num_items, summary.num_titles, summary.num_images) == (9, 7, 9)
    assert (summary.num_features, summary.feature_dim) == (3, 4)
    assert summary.num_interactions == 12
    assert summary.density == 12 / 27
    assert summary.lengths == Lengths(shortest=3, median=4.0, mean=4.0, longest=5, num_too_short=0)
    assert summary.reviews == {
        "train": ReviewCounts(3, 1, 1, 3, 3),
        "val": ReviewCounts(1, 1, 1, 1, 1),
        "test": ReviewCounts(1, 1, 1, 1, 1),
    }
    assert (summary.indexing, summary.examples_of_index) == ("sequential", ("1", "2", "3"))
    assert summary.num_users_with_negatives == 3
    assert not summary.has_timestamps


def test_a_pair_that_occurs_twice_fills_one_place_only(tmp_path: Path) -> None:
    dataset = read_lines(LinesSource(write_lines(tmp_path / "s.txt", ["1 1 1 2", "2 1"])), "shop", Faults())
    summary = summarise(dataset)
    assert (summary.num_interactions, summary.density) == (4, 3 / 4)
    assert summary.lengths.num_too_short == 1
    assert (summary.num_features, summary.feature_dim) == (0, None)
