"""The journal keeps whole batches, and belongs to one evaluation."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from model.errors import DatasetError
from model.evaluation.answers import (
    Answer,
    ExactAnswer,
    Header,
    Journal,
    RankedAnswer,
    TextAnswer,
    read_answers,
)

HEADER = Header("bundle", "toys", "toys", "data", {"seed": 0, "templates": ("A-3",)})
RANKED = RankedAnswer("A-3", 4, ("item-1", "item-2"), (-1.5, -2.25), 1, 108, ("unknown_user",), 0.5)
EXACT = ExactAnswer("A-3", 4, ("item-1",), (-1.5,), is_certified=True, num_beams=80, seconds=0.25)
TEXT = TextAnswer("C-8", 0, "a toy", 4.0, "stop", (), 0.125)


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    journal = Journal(path, HEADER)
    journal.append([RANKED, EXACT])
    journal.append([TEXT])
    assert journal.answers == Journal(path, HEADER).answers == read_answers(path) == [RANKED, EXACT, TEXT]


def test_a_journal_that_is_cut_anywhere_goes_on_after_its_last_whole_batch(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    journal = Journal(whole, HEADER)
    ends = [whole.stat().st_size]
    batches: list[list[Answer]] = [[RANKED, EXACT], [TEXT], [EXACT, TEXT, RANKED]]
    for batch in batches:
        journal.append(batch)
        ends.append(whole.stat().st_size)
    content = whole.read_bytes()
    for cut in range(ends[0], len(content) + 1, 7):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(content[:cut])
        resumed = Journal(path, HEADER)
        num_whole = sum(end <= cut for end in ends[1:])
        assert resumed.answers == [answer for batch in batches[:num_whole] for answer in batch]
        for batch in batches[num_whole:]:
            resumed.append(batch)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bundle": "other"}, "its bundle is bundle, now it is other"),
        ({"dataset_fingerprint": "other"}, "its dataset_fingerprint is data, now it is other"),
        ({"options": {"seed": 1, "templates": ("A-3",)}}, "its seed is 0, now it is 1"),
    ],
)
def test_answers_of_another_evaluation_are_refused_and_kept(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    path = tmp_path / "answers.jsonl"
    Journal(path, HEADER).append([RANKED])
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=f"has the answers of another evaluation: {named}; delete the file"):
        Journal(path, msgspec.structs.replace(HEADER, **changes))
    assert path.read_bytes() == before


def test_an_evaluation_that_ended_before_its_first_answer_does_not_block_another(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    Journal(path, HEADER)
    other = msgspec.structs.replace(HEADER, bundle="another")
    Journal(path, other).append([RANKED])
    assert Journal(path, other).answers == [RANKED]


@pytest.mark.parametrize("content", [b"", b"a diary", b'{"some": "json"}\n', b"\xff\n"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is not a journal of answers"):
        Journal(path, HEADER)
    assert path.read_bytes() == content


def test_a_broken_answer_within_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    Journal(path, HEADER).append([RANKED])
    path.write_bytes(path.read_bytes() + b'{"answer": 1, "is_last": true}\n')
    with pytest.raises(DatasetError, match="an answer is malformed"):
        Journal(path, HEADER)
    with pytest.raises(DatasetError, match="is not a journal of answers"):
        read_answers(path)
