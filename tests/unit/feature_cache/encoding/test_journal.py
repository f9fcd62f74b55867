"""What a run has done outlives it, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.journal import EncodedBatch, Journal
from feature_cache.encoding.sources import Fault

RUN: dict[str, str | int] = {"encoder": "tiny", "batch size": 2}
DIM = 3
BROKEN = Fault("b", "b.png", "broken")


def rows(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    return np.repeat(np.array(values, dtype=np.float16)[:, None], DIM, axis=1)


def fill(folder: Path) -> None:
    """Two batches, the later one first; picture 1 of four is broken."""
    with Journal(folder, RUN, DIM) as journal:
        journal.add(EncodedBatch(1, (2, 3), rows(2, 3), ()))
        journal.add(EncodedBatch(0, (0,), rows(0), (BROKEN,)))


def content(journal: Journal) -> list[float]:
    return [float(row[0]) for piece in journal.pieces() for row in piece]


def test_batches_are_kept_in_the_order_of_their_pictures(tmp_path: Path) -> None:
    fill(tmp_path)
    with Journal(tmp_path, RUN, DIM) as journal:
        assert journal.done == {0, 1}
        assert journal.places().tolist() == [0, 2, 3]
        assert content(journal) == [0, 2, 3]
        assert journal.faults == [BROKEN]


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_was_cut_off_counts_for_nothing(cut: int, tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(tmp_path, RUN, DIM) as journal:
        # The end of a line alone may be missing; then it is whole.
        assert journal.done == ({0, 1} if cut == 1 else {1})
        journal.add(EncodedBatch(0, (0, 1), rows(7, 8), ()))
    with Journal(tmp_path, RUN, DIM) as journal:
        assert content(journal) == [7, 8, 2, 3]


def test_rows_that_are_not_on_disk_as_they_were_written_count_for_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "rows.f16"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with Journal(tmp_path, RUN, DIM) as journal:
        assert journal.done == {1}
    path.write_bytes(b"\xff" + whole[1:])
    with Journal(tmp_path, RUN, DIM) as journal:
        assert journal.done == {0}
        journal.add(EncodedBatch(1, (2, 3), rows(5, 6), ()))
        assert content(journal) == [0, 5, 6]


@pytest.mark.parametrize("line", [b"[]", b"null", b'{"number": 5}', b"\xff\xfe", b"{}"])
def test_lines_of_another_form_count_for_nothing(line: bytes, tmp_path: Path) -> None:
    fill(tmp_path)
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with Journal(tmp_path, RUN, DIM) as journal:
        assert journal.done == {0, 1}


def test_another_run_is_refused_unless_it_starts_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    other = RUN | {"encoder": "another"}
    with pytest.raises(EncodingError, match=r"unfinished run with another encoder; .* --restart"):
        Journal(tmp_path, other, DIM)
    with Journal(tmp_path, other, DIM, restart=True) as journal:
        assert journal.done == frozenset()
        assert journal.places().tolist() == []
    assert json.loads((tmp_path / "run.json").read_text()) == other


def test_a_run_that_finished_no_batch_does_not_block_another(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN, DIM):
        pass
    (tmp_path / "rows.f16").write_bytes(b"\0\0\0")
    other = RUN | {"encoder": "another"}
    with Journal(tmp_path, other, DIM) as journal:
        assert journal.done == frozenset()
    assert json.loads((tmp_path / "run.json").read_text()) == other


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, RUN, DIM), pytest.raises(EncodingError, match="another run is using"):
        Journal(tmp_path, RUN, DIM)
    Journal(tmp_path, RUN, DIM).remove()
    assert not tmp_path.exists()
