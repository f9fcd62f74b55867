"""Safe reading of foreign pickles: plain containers, texts, numbers and numpy arrays, or a refusal.

The standard library only parses the instructions (`pickletools.genops`). They are carried out here, on plain values and
inert stand-ins, so that no class of the file's choice is ever called, not even one whose state setter is C code.
"""

from __future__ import annotations

import functools
import itertools
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.datasets.pickled_parts import REBUILT, DtypeParts, Name, PendingArray, Refused, key
from model.datasets.plain_values import check_plain
from model.errors import DatasetError, UnsafeFileError

MAX_BYTES = 1 << 30
"""Of a file."""
MAX_MEMORY = 4 << 30
"""Bytes of all values together, by estimate."""
MAX_MARKS = 1000
"""Containers that are being built at once."""
MAX_INTEGER_BITS = 1 << 13

_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_REFUSED = (
    *("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"),
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
)
_BATCH = 1 << 14
_STACK_ITEM, _SET_ITEM, _DICT_ITEM, _TAKEN, _CONTAINER = 8, 64, 104, 64, 216  # bytes, the most of each


def read_pickle(path: Path) -> object:
    """Load a pickle; raises UnsafeFileError if it could run code, DatasetError if it cannot be read.

    All kinds of dicts become dicts, scalars of numpy numbers, and one-dimensional arrays of objects lists.
    """
    try:
        return decode(_content(path))
    except DatasetError:
        raise
    except Refused as error:
        raise UnsafeFileError(
            f"{path.name} is refused: it {error}, but only plain containers and numpy arrays are read; save "
            "only dicts, lists, strings, numbers and arrays"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DatasetError(
            f"{path.name} is not a readable pickle ({type(error).__name__}: {error}); download the file again"
        ) from error


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DatasetError(f"{path.name} is larger than {MAX_BYTES >> 30} GiB; split it, or save it as JSON lines")
    return content


def decode(content: bytes) -> object:
    """The value of a pickle. Raises Refused if it could run code, other exceptions of any kind if it is damaged."""
    machine = _Machine()
    instructions = pickletools.genops(content)
    while batch := list(itertools.islice(instructions, _BATCH)):
        for opcode, argument, _ in batch:
            machine.actions[opcode.name](argument)
        machine.check_stack()
    (found,) = machine.stack
    check_plain(found)
    return found


class _Machine:
    """The stack machine of a pickle: what each instruction does with its argument."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._spent = 0
        self.actions: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(_VALUES, self._push),
            **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), self._push_text_of_python_2),
            **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), self._get),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), self._put),
            **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _: None),
            **{name: functools.partial(self._refuse, name) for name in _REFUSED},
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "NONE": lambda _: self.stack.append(None),
            "NEWTRUE": lambda _: self.stack.append(True),
            "NEWFALSE": lambda _: self.stack.append(False),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "EMPTY_LIST": lambda _: self._push_container([]),
            "EMPTY_DICT": lambda _: self._push_container({}),
            "EMPTY_SET": lambda _: self._push_container(set()),
            "MARK": self._mark,
            "POP": self._pop,
            "POP_MARK": self._pop_mark,
            "DUP": lambda _: self.stack.append(self.stack[-1]),
            "LIST": lambda _: self.stack.append(self._take()),
            "TUPLE": lambda _: self.stack.append(tuple(self._take())),
            "TUPLE1": lambda _: self.stack.append(tuple(self._last(1))),
            "TUPLE2": lambda _: self.stack.append(tuple(self._last(2))),
            "TUPLE3": lambda _: self.stack.append(tuple(self._last(3))),
            "DICT": lambda _: self.stack.append(_pairs({}, self._take(_DICT_ITEM))),
            "FROZENSET": lambda _: self.stack.append(frozenset(map(key, self._take(_SET_ITEM)))),
            "APPEND": lambda _: self._append([self.stack.pop()]),
            "APPENDS": lambda _: self._append(self._take()),
            "SETITEM": lambda _: self._set_items(self._last(2, _DICT_ITEM)),
            "SETITEMS": lambda _: self._set_items(self._take(_DICT_ITEM)),
            "ADDITEMS": lambda _: self._add_items(self._take(_SET_ITEM)),
            "GLOBAL": lambda name: self.stack.append(Name.of(*name.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self.stack.append(Name.of(*self._last(2))),
            "REDUCE": self._reduce,
            "BUILD": self._build,
        }

    def check_stack(self) -> None:
        if self._spent + _STACK_ITEM * len(self.stack) > MAX_MEMORY:
            raise MemoryError(f"it would take more than {MAX_MEMORY >> 30} GiB of memory")

    def _spend(self, num_bytes: int) -> None:
        self._spent += num_bytes
        if self._spent > MAX_MEMORY:
            self.check_stack()

    def _push(self, value: object) -> None:
        if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise ValueError(f"an integer of {value.bit_length()} bits; at most {MAX_INTEGER_BITS} are allowed")
        self._spend(sys.getsizeof(value))
        self.stack.append(value)

    def _push_text_of_python_2(self, text: str) -> None:
        if not text.isascii():
            raise ValueError("a text of Python 2 that is not ASCII")
        self._push(text)

    def _push_container(self, container: object) -> None:
        self._spend(_CONTAINER)
        self.stack.append(container)

    def _get(self, place: int | str) -> None:
        found = self._memo[int(place)]
        self.stack.append(found.value if isinstance(found, PendingArray) and found.is_built else found)

    def _put(self, place: int | str) -> None:
        self._spend(_DICT_ITEM)
        self._memo[int(place)] = self.stack[-1]

    @staticmethod
    def _refuse(name: str, argument: object) -> None:
        if name == "INST":
            Name.of(*str(argument).split(" ", 1))
        raise Refused(f"builds objects ({name})")

    def _mark(self, _: object) -> None:
        if len(self._marks) >= MAX_MARKS:
            raise ValueError(f"it builds more than {MAX_MARKS} containers at once")
        self._marks.append(len(self.stack))

    def _pop(self, _: object) -> None:
        if self._marks and self._marks[-1] == len(self.stack):
            self._marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self, _: object) -> None:
        self._take()

    def _take(self, item_cost: int = _STACK_ITEM) -> list[object]:
        """What is above the last mark."""
        start = self._marks.pop()
        if start > len(self.stack):
            raise ValueError("it takes values from below a mark")
        return self._last(len(self.stack) - start, item_cost)

    def _last(self, count: int, item_cost: int = _STACK_ITEM) -> list[object]:
        if count > len(self.stack):
            raise ValueError("it takes more values than there are")
        self._spend(_TAKEN + item_cost * count)
        start = len(self.stack) - count
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError(f"it appends to a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise TypeError(f"it sets items of a {type(target).__name__}")
        _pairs(target, items)

    def _add_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise TypeError(f"it adds items to a {type(target).__name__}")
        target.update(map(key, items))

    def _reduce(self, _: object) -> None:
        name, arguments = self._last(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise TypeError(f"it calls a {type(name).__name__}")
        if name.text not in REBUILT:
            raise Refused(f"calls {name.text}")
        found = REBUILT[name.text](*arguments)
        self._spend(2 * sys.getsizeof(found))
        self.stack.append(found)

    def _build(self, _: object) -> None:
        target, state = self._last(2)
        if isinstance(target, DtypeParts):
            target.set_state(state)
            self.stack.append(target)
        elif isinstance(target, PendingArray):
            self._spend(sys.getsizeof(state))
            target.set_state(state)
            self.stack.append(target.value)
        else:
            raise Refused("sets the state of objects (BUILD)")


def _pairs(target: dict[object, object], items: list[object]) -> dict[object, object]:
    for name, value in zip(items[::2], items[1::2], strict=True):
        target[key(name)] = value
    return target
