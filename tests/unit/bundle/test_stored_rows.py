"""Rows of a large file are read from disk and are never other than they were verified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from feature_cache.embedded import EmbeddedStore
from feature_cache.store import NoObserver
from model.bundle import feature_file
from model.bundle.features import ItemFeatures, load_features, open_features, write_features
from model.bundle.opened_file import OpenedFile
from model.bundle.stored_rows import StoredRows
from model.errors import BundleError, IntegrityError

NUM_ROWS, DIM = 50, 6
IDS = tuple(f"item-{place}" for place in range(NUM_ROWS))
ROWS = np.random.default_rng(1).standard_normal((NUM_ROWS, DIM)).astype(np.float32)


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_file, "MOST_HELD_BYTES", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_features(tmp_path / "features.safetensors", ItemFeatures(IDS, ROWS, "tiny"))
    return tmp_path / "features.safetensors"


def start_of_rows(path: Path) -> int:
    return path.read_bytes().index(ROWS.tobytes())


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@settings(max_examples=40)
@given(
    dtype=st.sampled_from([np.float16, np.float32]),
    shape=st.tuples(st.integers(0, 200), st.integers(1, 9)),
    seed=st.integers(0, 9),
)
def test_what_is_read_from_disk_is_what_is_read_into_memory(
    tmp_path_factory: pytest.TempPathFactory, dtype: type[np.floating], shape: tuple[int, int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("rows") / "it"
    random = np.random.default_rng(seed)
    rows = random.standard_normal(shape).astype(dtype)
    write_features(path, ItemFeatures(tuple(map(str, range(len(rows)))), rows))

    digests: list[str] = []
    found = open_features(OpenedFile(path), "it", shape[1], digests.append)

    assert isinstance(found.matrix, StoredRows)
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest()]
    np.testing.assert_array_equal(found.features, rows)
    places = random.integers(0, max(1, len(rows)), size=7 if len(rows) else 0)
    np.testing.assert_array_equal(found.rows(places), rows[places])
    assert found.read(places).is_intact.all()


@pytest.mark.parametrize("most_held", [0, 1 << 20])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_with_the_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, dtype: type[np.floating], most_held: int
) -> None:
    monkeypatch.setattr(feature_file, "MOST_HELD_BYTES", most_held)
    monkeypatch.setattr("model.bundle.stored_rows._PIECE_BYTES", 7 * DIM * 4)
    monkeypatch.setattr("model.bundle.finite_rows._STEP_BYTES", 3 * DIM * 4)
    rows = ROWS.astype(dtype)
    rows[1] = np.finfo(dtype).max
    write_features(tmp_path / "it", ItemFeatures(IDS, rows))
    load_features(tmp_path / "it")
    rows[40:, DIM - 1] = value
    write_features(tmp_path / "it", ItemFeatures(IDS, rows))

    with pytest.raises(BundleError, match="the embedding of item 'item-40' has values that are NaN or infinite"):
        load_features(tmp_path / "it")


def test_pieces_are_joined(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.bundle.stored_rows._PIECE_BYTES", 7 * DIM * 4)
    monkeypatch.setattr("model.bundle.stored_rows._STEP_BYTES", 3 * DIM * 4)
    np.testing.assert_array_equal(load_features(path).features, ROWS)


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("byte", [0, 1, 5, DIM * 4 - 1])
def test_a_flipped_bit_makes_its_row_missing_and_no_other(path: Path, byte: int, bit: int) -> None:
    found, start = load_features(path), start_of_rows(path)
    place = 17
    before = ROWS[place].tobytes()
    overwrite(path, start + place * DIM * 4 + byte, bytes([before[byte] ^ (1 << bit)]))

    read = found.read(np.arange(NUM_ROWS))

    assert np.flatnonzero(~read.is_intact).tolist() == [place]
    assert not read.values[place].any()
    with pytest.raises(IntegrityError, match="was changed after it was opened; restore the file"):
        found.rows(np.array([place]))
    overwrite(path, start + place * DIM * 4, before)
    np.testing.assert_array_equal(found.features, ROWS)


def test_rows_that_change_places_are_noticed(path: Path) -> None:
    found, start = load_features(path), start_of_rows(path)
    overwrite(path, start, ROWS[[1, 0]].tobytes())
    assert found.read(np.arange(3)).is_intact.tolist() == [False, False, True]


def test_zeros_and_numbers_with_other_signs_are_noticed(path: Path) -> None:
    found, start = load_features(path), start_of_rows(path)
    overwrite(path, start, np.concatenate([-ROWS[:1], 0 * ROWS[1:2]]).tobytes())
    assert found.read(np.arange(3)).is_intact.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("fault", "is_lost"),
    [
        (lambda path: os.truncate(path, 0), True),
        (lambda path: os.truncate(path, start_of_rows(path) + 10 * DIM * 4 + 1), True),
        (lambda path: write_features(path, ItemFeatures(IDS, 2 * ROWS)), False),
        (Path.unlink, False),
    ],
    ids=["emptied", "cut off", "replaced", "removed"],
)
async def test_the_store_never_answers_with_other_rows(
    path: Path, fault: Callable[[Path], None], *, is_lost: bool
) -> None:
    store = EmbeddedStore(load_features(path), NoObserver(), "the file")
    fault(path)
    batch = await store.get_many(["item-40", "unknown", "item-3"])
    due: NDArray[np.float32] = np.zeros((3, DIM), dtype=np.float32) if is_lost else ROWS[[40, 0, 3]]
    assert batch.is_present.tolist()[0] is not is_lost
    np.testing.assert_array_equal(batch.features[0], due[0])
    assert bool(store.problems) is is_lost
    assert bool(batch.shortfall) is is_lost


async def test_a_problem_ends_when_the_rows_are_back(path: Path) -> None:
    store, content = EmbeddedStore(load_features(path), NoObserver(), "the file"), path.read_bytes()
    path.write_bytes(b"")
    await store.get_many(["item-1", "item-2"])
    assert "the file was changed on disk while it is in use: 2 embeddings" in store.problems[0]
    path.write_bytes(content)
    await store.get_many(["item-1"])
    assert "1 embeddings" in store.problems[0]
    assert (await store.get_many(["item-1", "item-2"])).is_present.all()
    assert store.problems == []


def test_a_file_that_was_modified_is_reported_as_such_even_if_its_header_is_broken(path: Path) -> None:
    def refuse(_sha256: str) -> None:
        raise IntegrityError("it was modified")

    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(IntegrityError, match="it was modified"):
        open_features(OpenedFile(path), "it", None, refuse)
    with pytest.raises(BundleError, match="it cannot be read: its header"):
        load_features(path, "it")


def test_a_file_is_closed_with_its_last_reader(path: Path) -> None:
    def num_open() -> int:
        return sum(os.path.realpath(each) == str(path) for each in Path("/proc/self/fd").iterdir())

    found = load_features(path)
    assert num_open() == 1
    del found
    assert num_open() == 0
