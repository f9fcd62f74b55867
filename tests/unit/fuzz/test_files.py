"""A few damaged files of each kind, in this process; `make fuzz` tries thousands, each kind in processes of its own."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import __main__ as watcher
from tests.fuzz import worker
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS


@pytest.mark.filterwarnings("ignore")  # of libraries, about what is damaged
@pytest.mark.parametrize("kind", TARGETS)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    outcome = worker.run(kind, 7, range(40), tmp_path)
    assert (outcome["failures"], outcome["hangs"]) == (0, [])
    assert outcome["examples"] == 40


def test_an_exception_that_is_no_refusal_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> object:
        return lambda chance: 1 // 0

    monkeypatch.setitem(TARGETS, "broken", broken)
    assert worker.run("broken", 1, range(3), tmp_path)["failures"] == 3


def test_an_example_depends_on_its_number_alone() -> None:
    assert mutated(b"some content", Random("a 1 2")) == mutated(b"some content", Random("a 1 2"))
    assert len({mutated(b"some content", Random(seed)) for seed in range(50)}) > 25


def test_imports_and_the_first_example_do_not_count_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "SILENCE_S", 0.0)
    outcome = watcher.fuzz("keys", 1, 1)
    assert (outcome.signals, outcome.examples) == ([], 1)


def test_a_process_that_shows_no_progress_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "START_S", 0.0)
    assert watcher.fuzz("keys", 1, 1).signals == ["no progress at 0"]
