"""Cost and losses of a training run."""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

_KIBIBYTE = 1024
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Measures:
    """`peak_memory_bytes` is the GPU allocator's peak, or on a CPU the process's peak while it trained.

    For a resumed run, steps and times are those since it was resumed. Losses are pairs of step and loss.
    """

    steps: int
    seconds: float
    median_step_s: float
    peak_memory_bytes: int
    train_loss: tuple[tuple[int, float], ...]
    validation_loss: tuple[tuple[int, float], ...]


class StepClock(TrainerCallback):
    """Times the steps of a run, including data loading, excluding validation and checkpoints."""

    def __init__(self) -> None:
        self._durations: list[float] = []
        self._started = time.perf_counter()
        self._step_began = self._started

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = self._step_began = time.perf_counter()
        _forget_peak_memory()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._durations.append(time.perf_counter() - self._step_began)
        self._step_began = time.perf_counter()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_began = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_began = time.perf_counter()

    def measures(self, history: list[dict[str, float]]) -> Measures:
        """`history` is the trainer's log."""
        return Measures(
            steps=len(self._durations),
            seconds=time.perf_counter() - self._started,
            median_step_s=statistics.median(self._durations) if self._durations else 0.0,
            peak_memory_bytes=_peak_memory(),
            train_loss=_losses(history, "loss"),
            validation_loss=_losses(history, "eval_loss"),
        )


def _losses(history: list[dict[str, float]], name: str) -> tuple[tuple[int, float], ...]:
    return tuple((int(entry["step"]), round(entry[name], 4)) for entry in history if name in entry)


def _forget_peak_memory() -> None:
    """Reset the peak memory, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")  # resets VmHWM: Linux, proc_pid_clear_refs(5)


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if _STATUS.exists():
        peak = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii", errors="replace"))
        if peak is not None:
            return int(peak[1]) * _KIBIBYTE
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _KIBIBYTE
