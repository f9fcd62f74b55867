"""What is fuzzed: for each kind of file, a function that makes a random one and reads it as the project does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from model.datasets.pickles import read_pickle
from model.errors import Vip5Error
from tests.fuzz.pickles import random_pickle

Target = Callable[[Random], None]

ADMITTED = (Vip5Error,)
"""A refusal; any other exception is a fault."""


def pickles(folder: Path) -> Target:
    def target(chance: Random) -> None:
        path = folder / "found.pkl"
        path.write_bytes(random_pickle(chance))
        repr(read_pickle(path))

    return target


TARGETS: dict[str, Callable[[Path], Target]] = {"pickles": pickles}
