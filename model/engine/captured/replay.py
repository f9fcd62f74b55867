"""Capturing a function's device work once, to launch it as one from then on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model.engine.captured.program import Replay

_WARM_UP_RUNS = 2  # libraries choose and load their kernels in the first, which must not be captured


class Recorder:
    """Captures into CUDA graphs that share one pool of memory, since they are replayed one at a time."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> Replay:
        """Raises torch.OutOfMemoryError where there is no memory for what the function needs."""
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):
                run()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the device meanwhile: texts are generated and domains placed.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                run()
        except RuntimeError as error:
            reason = _out_of_memory(error)
            if reason is None:
                raise
            raise reason from error
        return graph.replay


def _out_of_memory(error: BaseException) -> torch.OutOfMemoryError | None:
    """What a failed capture may hide behind the failure to end it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, torch.OutOfMemoryError):
        cause = cause.__cause__ or cause.__context__
    return cause
