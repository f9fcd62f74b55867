"""Safe reading of foreign pickles: only plain containers and numpy arrays are built, and nothing is executed."""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
from numpy._core import multiarray, numeric  # where numpy's own pickles find what they name

from model.errors import DatasetError, UnsafeFileError


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `codecs.encode`, with which old pickles store bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode(encoding)


_ADMITTED: dict[tuple[str, str], object] = {
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, list, dict, tuple, int, float, complex, str, bytes, bytearray, bool)
    },
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.{module.__name__.rpartition('.')[2]}", name): getattr(module, name)
        for core in ("core", "_core")
        for module, name in ((multiarray, "_reconstruct"), (multiarray, "scalar"), (numeric, "_frombuffer"))
    },
}


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class and function except those of containers and arrays, before it is called."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise _RefusedError(f"{module}.{name}")
        return _ADMITTED[module, name]


class _RefusedError(Exception):
    """The pickle refers to a class or function that is not admitted."""


def read_pickle(path: Path) -> object:
    """Load a pickle; raises UnsafeFileError if it could run code, DatasetError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except _RefusedError as error:
        raise UnsafeFileError(
            f"{path.name} is refused: it refers to {error}, but only plain containers and numpy arrays are read; save "
            "only dicts, lists, strings, numbers and arrays"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DatasetError(
            f"{path.name} is not a readable pickle ({type(error).__name__}: {error}); download the file again"
        ) from error
