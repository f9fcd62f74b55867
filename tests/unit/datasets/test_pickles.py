from __future__ import annotations

import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest

from model.datasets.pickles import read_pickle
from tests.unit.bundle.refusals import refused


class Runs:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    found = {
        "a": [1, 2.5, "text", b"bytes", None, True, (1, {2}, frozenset({3}))],
        "ordered": OrderedDict(x=1),
        "default": defaultdict(list, {1: [2]}),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "number": np.float64(1.5),
    }
    path = tmp_path / "found.pkl"
    path.write_bytes(pickle.dumps(found, protocol))
    read = read_pickle(path)
    assert isinstance(read, dict)
    np.testing.assert_array_equal(read.pop("array"), found.pop("array"))
    assert read == found


def test_arrays_of_older_numpy_are_read(tmp_path: Path) -> None:
    path = tmp_path / "found.pkl"
    path.write_bytes(pickle.dumps(np.arange(3), 2).replace(b"numpy._core", b"numpy.core"))
    assert np.array_equal(np.asarray(read_pickle(path)), np.arange(3))


@pytest.mark.parametrize("function", [os.system, eval, getattr, __import__, np.load], ids=lambda f: f.__name__)
def test_a_pickle_that_could_run_code_is_refused_before_it_does(tmp_path: Path, function: object) -> None:
    path, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"train": [Runs(function, f"touch {trace}")]}))
    with refused("unsafe_file", "evil.pkl is refused: it refers to "):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps({"a": 1})[:-3]], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "found.pkl"
    path.write_bytes(content)
    with refused("invalid_dataset", "found.pkl is not a readable pickle"):
        read_pickle(path)
