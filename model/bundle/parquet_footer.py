"""Sizes in the footer of a Parquet file, read without pyarrow.

Some damaged footers make pyarrow end the process when it is asked for the sizes of a column, by an exception of C++
that it does not translate. The footer is a struct of Thrift's compact protocol (parquet.thrift of the Parquet format);
what is not needed is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

from model.bundle.opened_file import Content

MAGIC = b"PAR1"
MOST_FOOTER_BYTES = 32 << 20
MOST_VALUES = 500_000
"""In a footer; our own have about 25 for each column and million rows."""
_END_BYTES = 8  # the footer's length, then the magic
_MOST_LEVELS = 32
_BYTES_PER_VALUE = 8

# Types of the compact protocol.
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(14)
_FIXED = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}
_INTEGERS = (_I16, _I32, _I64)

# Numbers of fields in parquet.thrift.
_ROW_GROUPS, _COLUMNS, _CHUNK = 4, 1, 3  # of FileMetaData, RowGroup and ColumnChunk
_NUM_VALUES, _UNCOMPRESSED_BYTES = 5, 6  # of ColumnMetaData


class FooterError(ValueError):
    """A footer that breaks the format."""


def declared_bytes(content: Content) -> int:
    """The size of the pages of all columns before dictionaries are unpacked, as the file declares it.

    A value counts at least 8 bytes. Raises FooterError.
    """
    return _Footer(_footer(content)).declared_bytes()


def _footer(content: Content) -> bytes:
    if len(content) < len(MAGIC) + _END_BYTES or bytes(content[-len(MAGIC) :]) != MAGIC:
        raise FooterError("it does not end with PAR1")
    length = int.from_bytes(content[-_END_BYTES : -len(MAGIC)], "little")
    if length > len(content) - len(MAGIC) - _END_BYTES:
        raise FooterError(f"its footer would have {length} bytes, the file has {len(content)}")
    if length > MOST_FOOTER_BYTES:
        raise FooterError(f"its footer has {length} bytes, the limit is {MOST_FOOTER_BYTES}; write larger row groups")
    return bytes(content[-_END_BYTES - length : -_END_BYTES])


class _Footer:
    """A place in the footer, which moves forward."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0
        self._values_left = MOST_VALUES

    def declared_bytes(self) -> int:
        return sum(
            self._chunk_bytes()
            for _ in self._structs_of(_ROW_GROUPS, level=0)
            for _ in self._structs_of(_COLUMNS, level=1)
            for _ in self._struct_at(_CHUNK, level=2)
        )

    def _chunk_bytes(self) -> int:
        """Of the ColumnMetaData that begins here; a field that comes twice counts at its largest."""
        num_values = num_bytes = 0
        for number, kind in self._fields():
            if kind == _I64 and number in (_NUM_VALUES, _UNCOMPRESSED_BYTES):
                found = self._integer()
                if found < 0:
                    raise FooterError(f"a column declares {found} values or bytes")
                if number == _NUM_VALUES:
                    num_values = max(num_values, found)
                else:
                    num_bytes = max(num_bytes, found)
            else:
                self._skip(kind, 3)
        return max(num_bytes, _BYTES_PER_VALUE * num_values)

    def _structs_of(self, wanted: int, level: int) -> Iterator[None]:
        """Stops at each struct of the wanted list in the struct that begins here; the caller reads it."""
        for number, kind in self._fields():
            if number != wanted or kind != _LIST:
                self._skip(kind, level)
                continue
            kind_of_values, size = self._list()
            for _ in range(size):
                if kind_of_values == _STRUCT:
                    yield
                else:
                    self._skip(kind_of_values, level, is_in_list=True)

    def _struct_at(self, wanted: int, level: int) -> Iterator[None]:
        """Stops at the wanted struct in the struct that begins here; the caller reads it."""
        for number, kind in self._fields():
            if number == wanted and kind == _STRUCT:
                yield
            else:
                self._skip(kind, level)

    def _fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of the struct that begins here; the caller reads the value."""
        number = 0
        while True:
            self._count()
            head = self._byte()
            kind = head & 15
            if kind == _STOP:
                return
            number = number + (head >> 4) if head >> 4 else self._integer()
            yield number, kind

    def _skip(self, kind: int, level: int, *, is_in_list: bool = False) -> None:
        if is_in_list:
            self._count()
        if level > _MOST_LEVELS:
            raise FooterError(f"it nests more than {_MOST_LEVELS} levels")
        if kind in (_TRUE, _FALSE):
            self._place += is_in_list  # a field has its value in its type
        elif kind in _FIXED:
            self._place += _FIXED[kind]
        elif kind in _INTEGERS:
            self._natural()
        elif kind == _BINARY:
            size = self._natural()
            self._place += size
        elif kind in (_LIST, _SET):
            self._skip_list(level + 1)
        elif kind == _MAP:
            self._skip_map(level + 1)
        elif kind == _STRUCT:
            self._skip_struct(level + 1)
        else:
            raise FooterError(f"it has a value of the unknown type {kind}")

    def _skip_list(self, level: int) -> None:
        kind, size = self._list()
        for _ in range(size):
            self._skip(kind, level, is_in_list=True)

    def _skip_map(self, level: int) -> None:
        size = self._natural()
        kinds = self._byte() if size else 0
        for _ in range(size):
            self._skip(kinds >> 4, level, is_in_list=True)
            self._skip(kinds & 15, level, is_in_list=True)

    def _skip_struct(self, level: int) -> None:
        for _, kind in self._fields():
            self._skip(kind, level)

    def _list(self) -> tuple[int, int]:
        """Type and number of the values that follow."""
        head = self._byte()
        size = head >> 4
        return head & 15, self._natural() if size == 15 else size

    def _integer(self) -> int:
        found = self._natural()
        return (found >> 1) ^ -(found & 1)

    def _natural(self) -> int:
        found = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found & ((1 << 64) - 1)
        raise FooterError("it has an integer of more than 10 bytes")

    def _byte(self) -> int:
        if self._place >= len(self._content):
            raise FooterError("it is cut off")
        self._place += 1
        return self._content[self._place - 1]

    def _count(self) -> None:
        self._values_left -= 1
        if self._values_left < 0:
            raise FooterError(f"it has more than {MOST_VALUES} values; write larger row groups")
