"""Capture of a function's device work as a graph, which is launched as one operation."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Protocol

import torch

from model.engine.captured.program import Replay

_WARM_UP_RUNS = 2  # libraries select and load kernels in the first run, which must not be captured


class Graphs(Protocol):
    """A device that captures graphs."""

    def new_pool(self) -> object:
        """A handle of memory that captures share."""
        ...

    def capture(self, run: Callable[[], None], pool: object) -> Replay: ...

    def free(self) -> None:
        """Return memory that is not in use to the device."""
        ...


class CudaGraphs:
    """CUDA graphs on a stream."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def new_pool(self) -> object:
        return torch.cuda.graph_pool_handle()

    def capture(self, run: Callable[[], None], pool: object) -> Replay:
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                run()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads use the device during the capture: they generate texts and place domains.
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):  # type: ignore[arg-type]  # a handle of its own
            run()
        return graph.replay

    def free(self) -> None:
        torch.cuda.empty_cache()


class Recorder:
    """Captures graphs that share a pool of memory, since they are replayed one at a time."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._pool: object = None
        self._alive: weakref.WeakSet[_Capture] = weakref.WeakSet()

    def record(self, run: Callable[[], None]) -> Replay:
        """Raises torch.OutOfMemoryError if the function does not fit in memory; nothing of it is left in memory."""
        if not self._alive:
            self._pool = self._graphs.new_pool()  # torch cannot capture into a pool whose captures have all gone
        try:
            capture = _Capture(self._graphs.capture(run, self._pool))
        except RuntimeError as error:
            failure = _out_of_memory(error)
            if failure is None:
                raise
        else:
            self._alive.add(capture)
            return capture
        # Outside of the handler, no exception holds the failed frames, and their memory, any longer.
        self.free()
        raise torch.OutOfMemoryError(failure)

    def free(self) -> None:
        """Free what a failed search has left."""
        gc.collect()
        self._graphs.free()


class _Capture:
    """A captured graph; its memory is freed with it."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def __call__(self) -> None:
        self._replay()


def _out_of_memory(error: BaseException) -> str | None:
    """The message of the out-of-memory error that caused a failed capture, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, torch.OutOfMemoryError):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else str(cause)
