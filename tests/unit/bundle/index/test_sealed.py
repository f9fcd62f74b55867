"""Nobody can change or shorten what processes share, and nothing that could be is accepted."""

from __future__ import annotations

import array
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from model.bundle.index.index import Index
from model.bundle.index.sealed import SealedMemory
from model.errors import IntegrityError
from tests.unit.bundle.index.tables import KEY, tiny_index, written

OPENS = """
import sys
from model.bundle.index.index import Index
from model.bundle.index.sealed import SealedMemory
index = Index.open(SealedMemory(int(sys.argv[1])))
catalog = index.tables.catalog
assert "torch" not in sys.modules
print(index.key, len(catalog), catalog.row_of("item-7"), catalog.titles[7])
"""


def test_sealed_memory_refuses_every_change() -> None:
    memory = SealedMemory.of([b"first ", b"second"])
    assert bytes(memory.map()) == b"first second"
    for change in (
        lambda: os.write(memory.descriptor, b"x"),
        lambda: os.pwrite(memory.descriptor, b"x", 0),
        lambda: os.truncate(memory.descriptor, 0),
        lambda: os.truncate(memory.descriptor, 100),
        lambda: mmap.mmap(memory.descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        with pytest.raises(PermissionError):
            change()
    assert memory.map().readonly


def test_a_map_outlives_its_descriptor() -> None:
    memory = SealedMemory.of([b"kept"])
    content = memory.map()
    memory.close()
    memory.close()
    assert bytes(content) == b"kept"


def test_a_file_and_an_open_memory_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"x")
    with pytest.raises(IntegrityError, match="no memory file"):
        SealedMemory(os.open(path, os.O_RDONLY))
    with pytest.raises(IntegrityError, match="is not sealed"):
        SealedMemory(os.memfd_create("open", os.MFD_ALLOW_SEALING))


def test_another_process_opens_what_it_is_sent() -> None:
    index = tiny_index()
    command = [sys.executable, "-c", OPENS, str(index.memory.descriptor)]
    done = subprocess.run(command, pass_fds=[index.memory.descriptor], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [KEY, "30", "6", "toy", "number", "8"]


def test_a_descriptor_is_sent_over_a_socket() -> None:
    here, there = socket.socketpair()
    with here, there:
        index = tiny_index()
        socket.send_fds(here, [b"i"], [index.memory.descriptor])
        _, ancillary, _, _ = there.recvmsg(1, socket.CMSG_SPACE(array.array("i", [0]).itemsize))
        received = array.array("i")
        received.frombytes(ancillary[0][2])
        same = Index.open(SealedMemory(received[0]))
    assert same.tables.catalog.item_ids == index.tables.catalog.item_ids


def test_what_is_used_is_what_was_verified(tmp_path: Path) -> None:
    path = written(tiny_index(), tmp_path / "toys.index")
    descriptor = os.open(path, os.O_RDONLY)
    index = Index.verified(descriptor, path.name)
    os.close(descriptor)
    titles = list(index.tables.catalog.titles)
    path.write_bytes(b"\xff" * path.stat().st_size)
    os.truncate(path, 0)
    assert index.tables.catalog.table.column("title").to_pylist() == titles
