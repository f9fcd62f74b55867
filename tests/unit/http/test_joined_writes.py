"""What is written for one answer goes out together, and nothing waits longer than a pass of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from service.http.joined_writes import JoinedWrites

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Recorder(asyncio.Transport):
    """Records calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[object] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def write_eof(self) -> None:
        self.calls.append("eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def get_write_buffer_size(self) -> int:
        return 0


async def test_head_and_body_are_one_write() -> None:
    recorder = Recorder()
    joined = JoinedWrites(recorder)
    for _ in range(2):
        joined.write(HEAD)
        assert joined.get_write_buffer_size() == len(HEAD)
        joined.write(bytearray(b"body"))
    joined.write(b"more")
    await asyncio.sleep(0)
    assert recorder.calls == [HEAD + b"body", HEAD + b"body", b"more"]


async def test_a_head_alone_goes_out_in_the_same_pass() -> None:
    recorder = Recorder()
    JoinedWrites(recorder).write(HEAD)
    assert recorder.calls == []
    await asyncio.sleep(0)
    assert recorder.calls == [HEAD]


async def test_an_informational_head_does_not_wait() -> None:
    recorder = Recorder()
    JoinedWrites(recorder).write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert recorder.calls == [b"HTTP/1.1 100 Continue\r\n\r\n"]


@pytest.mark.parametrize(
    ("end", "calls"), [("write_eof", [HEAD, "eof"]), ("close", [HEAD, "close"]), ("abort", ["abort"])]
)
async def test_an_end_comes_after_what_was_written(end: str, calls: list[object]) -> None:
    recorder = Recorder()
    joined = JoinedWrites(recorder)
    joined.write(HEAD)
    getattr(joined, end)()
    await asyncio.sleep(0)
    assert recorder.calls == calls
