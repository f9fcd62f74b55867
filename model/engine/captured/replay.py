"""Capture of a function's device work as a CUDA graph, which is launched as one operation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model.engine.captured.program import Replay

_WARM_UP_RUNS = 2  # libraries select and load kernels in the first run, which must not be captured


class Recorder:
    """Captures CUDA graphs that share one memory pool, since they are replayed one at a time."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Replay:
        """Raises torch.OutOfMemoryError if the function does not fit in memory."""
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                run()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads use the device during the capture: they generate texts and place domains.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                run()
        except RuntimeError as error:
            reason = _out_of_memory(error)
            if reason is None:
                raise
            raise reason from error
        return graph.replay


def _out_of_memory(error: BaseException) -> torch.OutOfMemoryError | None:
    """The out-of-memory error that caused a failed capture, if there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, torch.OutOfMemoryError):
        cause = cause.__cause__ or cause.__context__
    return cause
