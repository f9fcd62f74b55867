"""What a pickle may leave behind: plain values whose nesting and size are bounded, however they share their parts."""

from __future__ import annotations

import numpy as np

from model.datasets.pickled_parts import Refused

MAX_DEPTH = 100
"""Containers inside one another."""
MAX_UNFOLDED = 1 << 32
"""Values and characters, where a value that several containers share counts once for each."""

_CONTAINERS = frozenset((list, dict, tuple, set, frozenset))
_PLAIN = frozenset((str, bytes, bytearray, int, float, complex, bool, type(None), np.ndarray))


def check_plain(root: object) -> None:
    """Raises if anything but plain values is left, or they are nested too deep, in a circle or without measure."""
    if type(root) not in _CONTAINERS:
        _leaf_size(root)
        return
    known: dict[int, tuple[int, int]] = {}  # size and height of containers that were measured
    path: set[int] = set()
    stack = [root]
    while stack:
        value = stack[-1]
        if id(value) in known:
            stack.pop()
            continue
        parts = _parts(value)
        inner = [part for part in parts if type(part) in _CONTAINERS]
        if id(value) not in path:
            path.add(id(value))
            if len(path) > MAX_DEPTH or any(id(part) in path for part in inner):
                raise ValueError(f"containers are nested in a circle or more than {MAX_DEPTH} deep")
            waiting = [part for part in inner if id(part) not in known]
            if waiting:
                stack += waiting
                continue
        measures = [known[id(part)] for part in inner]
        size = 1 + sum(size for size, _ in measures) + sum(map(_leaf_size, parts))
        height = 1 + max((height for _, height in measures), default=0)
        if size > MAX_UNFOLDED or height > MAX_DEPTH:
            raise ValueError(f"containers that share parts unfold to more than {MAX_UNFOLDED} values or too deep")
        known[id(value)] = size, height
        path.discard(id(value))
        stack.pop()


def _parts(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    assert isinstance(value, list | tuple | set | frozenset)
    return list(value)


def _leaf_size(value: object) -> int:
    if type(value) in _CONTAINERS:
        return 0
    if type(value) not in _PLAIN:
        raise Refused(f"contains {value}")  # a stand-in that nothing was made of
    if isinstance(value, str | bytes | bytearray):
        return 1 + len(value)
    return 1 + value.nbytes if isinstance(value, np.ndarray) else 1
