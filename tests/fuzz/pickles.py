"""A grammar of pickles: instructions in an order that mostly keeps a stack, names of numpy's, arguments of any size."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict, defaultdict
from random import Random

import numpy as np

from tests.fuzz.mutation import mutated

NAMES = (
    b"numpy.core.multiarray\n_reconstruct",
    b"numpy._core.multiarray\nscalar",
    b"numpy._core.numeric\n_frombuffer",
    b"numpy\nndarray",
    b"numpy\ndtype",
    b"collections\nOrderedDict",
    b"collections\ndefaultdict",
    b"_codecs\nencode",
    *(b"builtins\n" + name for name in (b"set", b"frozenset", b"list", b"dict", b"bytearray", b"bytes", b"complex")),
    b"os\nsystem",
    b"builtins\neval",
)
DTYPES = ("b1", "i1", "i8", "u4", "f2", "f8", "U3", "S4", "O8", "V8", "M8", "U999999999", "f16", "c16", "x")
VALUES: tuple[object, ...] = (
    {"train": [{"a": 1, "b": [0.5, None]}], "val": [], "test": []},
    {1: "one", "two": 2, b"three": (3, 3.0, True)},
    [np.arange(5), np.float64(2.5), np.array([["a", "bc"]]), np.array([1, "x"], dtype=object)],
    [OrderedDict(a=1), defaultdict(list, b=[2]), {1, 2}, frozenset("ab"), bytearray(b"xy"), 1 + 2j],
    np.array([True, False]),
    ("x" * 300, b"y" * 300, 1 << 70, -(1 << 33), float("nan")),
)


def random_pickle(chance: Random) -> bytes:
    """A valid pickle that was damaged, or one that the grammar made."""
    if chance.random() < 0.4:
        content = pickle.dumps(chance.choice(VALUES), chance.randrange(6))
        return content if chance.random() < 0.1 else mutated(content, chance)
    return _Grammar(chance).program()


class _Grammar:
    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def program(self) -> bytes:
        """Values above each other, in containers or arrays, then the end; sometimes an instruction out of place."""
        chance = self._chance
        content = b"\x80" + bytes([chance.choice((2, 3, 4, 5))]) + self.value(0)
        for _ in range(chance.choice((0, 0, 1, 4, 12))):
            content += self.noise() if chance.random() < 0.5 else self.value(0)
        content += b"."
        return mutated(content, chance) if chance.random() < 0.3 else content

    def value(self, depth: int) -> bytes:
        kinds = [self.plain, self.plain, self.text, self.number]
        if depth < 5:
            kinds += [self.container, self.container, self.array, self.scalar, self.call, self.memo]
        return self._chance.choice(kinds)(depth)

    def plain(self, depth: int) -> bytes:
        return self._chance.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f"))

    def number(self, depth: int) -> bytes:
        chance = self._chance
        size = chance.choice((0, 1, 8, 9, 255))
        return chance.choice((
            b"K" + chance.randbytes(1),
            b"J" + chance.randbytes(4),
            b"G" + chance.randbytes(8),
            b"\x8a" + bytes([size]) + chance.randbytes(size),
            b"\x8b" + struct.pack("<i", chance.choice((size, -1, 2**31 - 1))) + chance.randbytes(size),
            b"I" + chance.choice((b"01", b"00", b"7", b"9" * 5000, b"x")) + b"\n",
            b"L" + chance.choice((b"7L", b"-1", b"")) + b"\n",
            b"F" + chance.choice((b"1e308", b"nan", b"1e999", b"")) + b"\n",
        ))  # fmt: skip

    def text(self, depth: int) -> bytes:
        chance = self._chance
        content = chance.choice((b"a", b"train", b"latin1", b"<", b"\xff\xfe", b"x" * 40, b"", b"\xed\xa0\x80"))
        length = len(content) if chance.random() < 0.9 else chance.choice((0, 2**31 - 1, 2**32 - 1))
        return chance.choice((
            b"X" + struct.pack("<I", length) + content,
            b"\x8c" + bytes([len(content)]) + content,
            b"\x8d" + struct.pack("<Q", chance.choice((length, 2**63 - 1))) + content,
            b"B" + struct.pack("<I", length) + content,
            b"C" + bytes([len(content)]) + content,
            b"\x8e" + struct.pack("<Q", chance.choice((length, 2**64 - 1))) + content,
            b"\x96" + struct.pack("<Q", length) + content,
            b"S'" + content.replace(b"\n", b"") + b"'\n",
            b"U" + bytes([len(content)]) + content,
            b"V" + content + b"\n",
        ))  # fmt: skip

    def container(self, depth: int) -> bytes:
        chance = self._chance
        items = b"".join(self.value(depth + 1) for _ in range(chance.randrange(5)))
        pairs = b"".join(self.value(depth + 4) + self.value(depth + 1) for _ in range(chance.randrange(4)))
        return chance.choice((
            b"](" + items + b"e",
            b"}(" + pairs + b"u",
            b"\x8f(" + items + b"\x90",
            b"(" + items + chance.choice((b"t", b"l", b"\x91", b"d")),
            b"]" + self.value(depth + 1) + b"a",
            b"}" + self.value(depth + 4) + self.value(depth + 1) + b"s",
            self.value(depth + 1) + b"\x85",
            self.value(depth + 1) + self.value(depth + 1) + b"\x86",
        ))  # fmt: skip

    def name(self) -> bytes:
        name = self._chance.choice(NAMES)
        if self._chance.random() < 0.7:
            return b"c" + name + b"\n"
        module, _, rest = name.partition(b"\n")
        return b"".join(b"\x8c" + bytes([len(each)]) + each for each in (module, rest)) + b"\x93"

    def dtype(self) -> bytes:
        chance = self._chance
        code = chance.choice(DTYPES).encode()
        found = b"cnumpy\ndtype\n(\x8c" + bytes([len(code)]) + code + b"\x89\x88tR"
        fields = chance.choice((b"NNN", b"N\x8c\x01f\x85}\x8c\x01fcnumpy\ndtype\n(\x8c\x02O8\x89\x88tRK\x00\x86s"))
        state = b"(K\x03\x8c\x01" + chance.choice((b"<", b">", b"|", b"=", b"x")) + fields
        state += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK" + chance.choice((b"\x00", b"\x3f")) + b"tb"
        return found + state if chance.random() < 0.7 else found

    def shape(self) -> bytes:
        chance = self._chance
        sizes = [chance.choice((0, 1, 2, 3, 8, 2**31 - 1, -1)) for _ in range(chance.choice((0, 1, 1, 2, 40)))]
        return b"(" + b"".join(b"J" + struct.pack("<i", size) for size in sizes) + b"t"

    def raw(self) -> bytes:
        size = self._chance.choice((0, 1, 2, 4, 8, 12, 16, 24, 32))
        content = self._chance.choice((bytes(size), self._chance.randbytes(size), b"A" * size))
        return b"C" + bytes([size]) + content

    def array(self, depth: int) -> bytes:
        chance = self._chance
        if chance.random() < 0.3:
            order = chance.choice((b"C", b"F", b"x"))
            arguments = self.raw() + self.dtype() + self.shape() + b"\x8c\x01" + order
            return b"cnumpy._core.numeric\n_frombuffer\n(" + arguments + b"tR"
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
        content = chance.choice((self.raw(), self.raw(), b"](" + self.value(depth + 1) + b"e"))
        state = b"(K\x01" + self.shape() + self.dtype() + chance.choice((b"\x89", b"\x88")) + content + b"tb"
        return start + state if chance.random() < 0.9 else start

    def scalar(self, depth: int) -> bytes:
        return b"cnumpy.core.multiarray\nscalar\n" + self.dtype() + self.raw() + b"\x86R"

    def call(self, depth: int) -> bytes:
        arguments = b"".join(self.value(depth + 1) for _ in range(self._chance.randrange(4)))
        return self.name() + b"(" + arguments + b"t" + self._chance.choice((b"R", b"R", b"\x81", b"o", b"b"))

    def memo(self, depth: int) -> bytes:
        chance = self._chance
        place = chance.choice((0, 1, 2, 200, 2**31 - 1, 2**32 - 1))
        short = bytes([place % 256])
        return self.value(depth + 1) + chance.choice((
            b"\x94",
            b"q" + short,
            b"r" + struct.pack("<I", place),
            b"q" + short + b"h" + short + b"a",
            b"p%d\ng%d\n" % (place, place),
            b"2",
        ))  # fmt: skip

    def noise(self) -> bytes:
        """An instruction that is out of place."""
        chance = self._chance
        return chance.choice((
            *(b"0", b"1", b"(", b"a", b"e", b"u", b"b", b"R", b"Q", b"o", b"\x97", b"\x98", b"\x82\x01", b"h\x00"),
            b"Px\n",
            b"ios\nsystem\n",
            b"\x95" + chance.randbytes(8),
            chance.randbytes(1),
        ))  # fmt: skip
