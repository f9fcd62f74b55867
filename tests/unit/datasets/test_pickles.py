from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest

from model.datasets import pickles, plain_values
from model.datasets.pickles import read_pickle
from tests.fuzz.pickles import random_pickle
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


def test_kinds_of_dicts_scalars_and_lists_of_objects_become_plain(tmp_path: Path) -> None:
    found = [
        OrderedDict(a=1),
        defaultdict(int, b=2),
        np.int64(7),
        np.str_("seven"),
        np.array(["x", None], dtype=object),
    ]
    read = read_of(tmp_path, pickle.dumps(found))
    assert read == [{"a": 1}, {"b": 2}, 7, "seven", ["x", None]]
    assert isinstance(read, list)
    assert [type(value) for value in read] == [dict, dict, int, str, list]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.array([[1, 2, 3], [4, 5, 6]], dtype=">i2", order="F"),
        np.array([True, False]),
        np.array(["ä", "日本"]),
        np.array([b"ab", b"c"]),
        np.zeros((0, 3), np.float16),
        np.full((), 2.5, np.float32),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_every_admitted_kind_keep_their_values(
    tmp_path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], protocol: int
) -> None:
    (read,) = as_list(read_of(tmp_path, pickle.dumps([array], protocol)))
    assert isinstance(read, np.ndarray)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert np.array_equal(read, array)


# A numpy type whose state says that its objects are plain bytes, then an array of these bytes.
OBJECTS_FROM_BYTES = (
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(K\x01tcnumpy\ndtype\n(X\x02\x00\x00\x00V8"
    b"\x89\x88tR(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00ft}X\x01\x00\x00\x00f(cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tRK\x00tsK\x08"
    b"K\x01K\x00tb\x89C\x08AAAAAAAAtb."
)


def test_bytes_never_become_pointers_to_objects(tmp_path: Path) -> None:
    """In a process of its own, because it was ended by SIGSEGV."""
    (tmp_path / "found.pkl").write_bytes(b"\x80\x03" + OBJECTS_FROM_BYTES)
    program = (
        "import sys, pathlib\nfrom model.datasets.pickles import read_pickle\n"
        "from model.errors import DatasetError, UnsafeFileError\n"
        "try:\n    print(read_pickle(pathlib.Path(sys.argv[1])))\n"
        "except (DatasetError, UnsafeFileError) as error:\n    print('refused:', error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "found.pkl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.returncode
    assert "refused: found.pkl is not a readable pickle" in done.stdout
    assert "only booleans, integers, floats and texts are read" in done.stdout


@pytest.mark.parametrize(
    "content",
    [
        b"(i__main__\nRuns\n.",
        b"(cos\nsystem\nX\x01\x00\x00\x00ao.",
        b"\x80\x02cbuiltins\nlist\n)\x81.",
        b"\x80\x04cbuiltins\nlist\n)}\x92.",
        b"\x82\x01.",
        b"\x83\x01\x00.",
        b"\x84\x01\x00\x00\x00.",
        b"Psomething\n.",
        b"NQ.",
        b"\x80\x05\x97.",
        b"\x80\x05C\x01a\x98.",
        b"}}b.",
        b"cbuiltins\nlist\n.",
        b"cnumpy\nndarray\n)R.",
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00i8tR.",
    ],
)
def test_objects_are_never_built(tmp_path: Path, content: bytes) -> None:
    with refused("unsafe_file", "found.pkl is refused: it "):
        read_of(tmp_path, content)


def deep(num_tuples: int) -> bytes:
    """Tuples in one another, as a key: hashing them would exhaust the stack of C."""
    return b"\x80\x02}N" + b"\x85" * num_tuples + b"Ns."


def doubled(num_lists: int) -> bytes:
    """Lists that hold the one before them twice."""
    lists = (b"0](j%sj%se\x94" % ((place.to_bytes(4, "little"),) * 2) for place in range(num_lists))
    return b"\x80\x04]\x94" + b"".join(lists) + b"."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(deep(100_000), "keys must be texts or numbers", id="deep key"),
        pytest.param(b"\x80\x02" + b"N" + b"\x85" * 20_000 + b".", "more than 100 deep", id="deep"),
        pytest.param(b"]q\x00h\x00a.", "in a circle", id="circle"),
        pytest.param(doubled(60), "unfold to more than", id="doubling lists"),
        pytest.param(b"(" * 2000 + b".", "more than 1000 containers at once", id="marks"),
        pytest.param(b"\x8b\x00\x00\x00\x7fabc.", "ValueError", id="long integer cut off"),
        pytest.param(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc.", "ValueError", id="long text cut off"),
        pytest.param(b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b"1.", "IndexError", id="memo at a high place"),
        pytest.param(b"\x8a\xff" + b"\x7f" * 255 + b"\x8b\x00\x08\x00\x00" + b"\x7f" * 2048 + b".", "bits", id="bits"),
        pytest.param(b"}(\x8a\x09" + b"\x7f" * 9 + b"Nu.", "at most 64 bits", id="integers of equal hash"),
        pytest.param(b"NN(\x86t.", "below a mark", id="below a mark"),
    ],
)
def test_what_would_take_memory_or_time_without_end_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with refused("invalid_dataset", message):
        read_of(tmp_path, content)


def test_the_memory_and_the_size_of_a_file_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_MEMORY", 1 << 20)
    for content in (b"\x8f" * 10_000 + b".", b"N" * 200_000 + b".", b"\x80\x04]" + b"\x94" * 20_000 + b"."):
        with refused("invalid_dataset", "would take more than"):
            read_of(tmp_path, content)
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    with refused("invalid_dataset", "is larger than"):
        read_of(tmp_path, b"N" * 11)


def test_texts_that_are_shared_count_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_values, "MAX_UNFOLDED", 1000)
    text = "x" * 100
    assert read_of(tmp_path, pickle.dumps([text] * 5)) == [text] * 5
    with refused("invalid_dataset", "unfold to more than"):
        read_of(tmp_path, pickle.dumps([text] * 50))


def test_random_pickles_are_read_or_refused() -> None:
    """The whole run of 100,000 is `make fuzz`."""
    command = [sys.executable, "-m", "tests.fuzz.worker", "pickles", "--seed", "1", "--count", "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_grammar_of_pickles_reaches_values_and_refusals() -> None:
    outcomes = {"read": 0, "refused": 0}
    for seed in range(300):
        try:
            pickles.decode(random_pickle(Random(seed)))
            outcomes["read"] += 1
        except Exception:  # noqa: BLE001 - `read_pickle` translates them
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 40, outcomes


def read_of(folder: Path, content: bytes) -> object:
    (folder / "found.pkl").write_bytes(content)
    return read_pickle(folder / "found.pkl")


def as_list(found: object) -> list[object]:
    assert isinstance(found, list)
    return found
