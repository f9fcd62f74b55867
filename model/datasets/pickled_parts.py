"""Inert stand-ins for what pickles refer to by name, and the plain values and arrays that are rebuilt from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DIMENSIONS = 32
MAX_KEY = 1 << 64
"""Beyond it, arbitrarily many integers have the same hash."""

_LAST_CODE_POINT = 0x10FFFF
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6}")
_OBJECTS = "O8"
_ORDERS = ("<", ">", "=", "|")


class Refused(Exception):  # noqa: N818 - says what happens to the file
    """The pickle could run code; the message completes "it …"."""


@dataclass(frozen=True)
class Name:
    """A class or function that is admitted; only its name is kept."""

    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, module: object, name: object) -> Name:
        """Raises Refused for any other."""
        text = f"{module}.{name}".replace("__builtin__.", "builtins.", 1).replace("numpy._core.", "numpy.core.", 1)
        if text not in _NAMES:
            raise Refused(f"refers to {module}.{name}")
        return cls(text)


class DtypeParts:
    """A numpy type that is being described."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:  # noqa: ARG002, FBT002
        if not isinstance(code, str) or not (_DTYPE.fullmatch(code) or code == _OBJECTS):
            raise ValueError(f"numpy type {code!r}; only booleans, integers, floats and texts are read")
        self._code = code
        self._order = "="

    @property
    def is_object(self) -> bool:
        return self._code == _OBJECTS

    def set_state(self, state: object) -> None:
        """Takes the byte order and refuses fields, shapes and metadata."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in _ORDERS or any(state[2:5]):
            raise ValueError("a numpy type with fields or a shape of its own")
        self._order = str(state[1])

    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype("=" + self._code).newbyteorder(self._order)  # type: ignore[arg-type]  # one of _ORDERS

    def __repr__(self) -> str:
        return f"the numpy type {self._code}"


class PendingArray:
    """An array whose content follows."""

    def __init__(self, kind: object, shape: object, code: object) -> None:  # noqa: ARG002
        if kind != Name("numpy.ndarray"):
            raise ValueError("an array of another class")
        self.is_built = False
        self.value: object = None

    def set_state(self, state: object) -> None:
        if self.is_built or not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array that is described twice or incompletely")
        _, shape, parts, is_fortran, content = state
        self.value = _array(content, parts, shape, "F" if is_fortran is True else "C")
        self.is_built = True

    def __repr__(self) -> str:
        return "an array without content"


def key(value: object) -> object:
    """The value, if it may be a dict's key or a set's member: of a kind whose hash is quick and well spread."""
    if isinstance(value, str | bytes | float | complex | None):
        return value
    if isinstance(value, int) and abs(value) < MAX_KEY:
        return value
    raise TypeError(f"a key is a {type(value).__name__}; keys must be texts or numbers of at most 64 bits")


def _array(content: object, parts: object, shape: object, order: object) -> object:
    """An array of the described type and shape, whose size must agree with the content; a list for objects."""
    if not isinstance(parts, DtypeParts) or order not in {"C", "F"}:
        raise TypeError("an array without a type")
    lengths = [shape] if isinstance(shape, int) else shape
    if not isinstance(lengths, list | tuple) or len(lengths) > MAX_DIMENSIONS:
        raise TypeError("an array without a shape")
    if not all(type(length) is int and 0 <= length < 1 << 48 for length in lengths):
        raise ValueError(f"an array of shape {str(shape)[:80]}")
    if parts.is_object:
        if not isinstance(content, list) or [len(content)] != list(lengths):
            raise ValueError("an array of objects that is not one list")
        return content
    dtype = parts.dtype()
    if not isinstance(content, bytes | bytearray) or math.prod(lengths) * dtype.itemsize != len(content):
        raise ValueError(f"an array of {math.prod(lengths)} values of {dtype} whose content has another size")
    if not content:
        return np.zeros(tuple(lengths), dtype)
    _check_values(content, dtype)
    flat: NDArray[np.generic] = np.frombuffer(content, dtype)
    return flat.reshape(tuple(lengths), order="F" if order == "F" else "C").copy(order="K")


def _check_values(content: bytes | bytearray, dtype: np.dtype[np.generic]) -> None:
    """Bits that are no value of their type are undefined behaviour in C code that reads them."""
    if dtype.kind == "b" and max(content) > 1:
        raise ValueError("booleans other than 0 and 1")
    if dtype.kind == "U":
        points = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if points.max() > _LAST_CODE_POINT:
            raise ValueError("characters that do not exist")


def _scalar(parts: object, content: object) -> object:
    found = _array(content, parts, (), "C")
    assert isinstance(found, np.ndarray)
    return found.item()


def _bytes(text: object = b"", encoding: object = "latin1") -> bytes:
    """Bytes, which old pickles store as a text."""
    if isinstance(text, bytes | bytearray):
        return bytes(text)
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise ValueError(f"bytes in the encoding {str(encoding)[:80]!r}")
    return text.encode("latin1")


def _dict(pairs: object = ()) -> dict[object, object]:
    if not isinstance(pairs, list | tuple):
        raise TypeError("a dict that is not made of pairs")
    return {key(name): value for name, value in pairs}


def _default_dict(factory: object = None) -> dict[object, object]:
    if factory is not None and not isinstance(factory, Name):
        raise TypeError("a defaultdict without a class")
    return {}


def _items(items: object = ()) -> list[object]:
    if not isinstance(items, list | tuple):
        raise TypeError("a set that is not made of a list")
    return [key(item) for item in items]


def _complex(real: object, imaginary: object) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise TypeError("a complex number that is not made of two floats")
    return complex(real, imaginary)


REBUILT: dict[str, Callable[..., object]] = {
    "_codecs.encode": _bytes,
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda *arguments: bytearray(_bytes(*arguments)),
    "builtins.complex": _complex,
    "builtins.frozenset": lambda *arguments: frozenset(_items(*arguments)),
    "builtins.set": lambda *arguments: set(_items(*arguments)),
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _default_dict,
    "numpy.dtype": DtypeParts,
    "numpy.core.multiarray._reconstruct": PendingArray,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array,
}
"""What stands for a call of each function and class."""

_TYPES = ("list", "dict", "tuple", "int", "float", "str", "bool")  # such as a defaultdict's, which is never called
_NAMES = {*REBUILT, *(f"builtins.{name}" for name in _TYPES), "numpy.ndarray"}
