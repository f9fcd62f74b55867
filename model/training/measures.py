"""Cost and losses of a training run."""

from __future__ import annotations

import json
import re
import resource
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from model.training.validation import METRICS

_KIBIBYTE = 1024
_CLOCK = "clock.json"  # in a checkpoint
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
    validation: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    """Pairs of step and metric, by its name, as the engine's answers have it."""
    best_step: int | None = None  # whose weights are the result; None for the last one's


class StepClock(TrainerCallback):
    """Times the steps of a run, including data loading, excluding validation and checkpoints.

    `earlier_s` is the time of the steps before a run was resumed, which checkpoints remember.
    """

    def __init__(self, earlier_s: float = 0.0) -> None:
        self.trained_s = earlier_s
        self._durations: list[float] = []
        self._started = time.perf_counter()
        self._step_began = self._started

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = self._step_began = time.perf_counter()
        _forget_peak_memory()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._durations.append(time.perf_counter() - self._step_began)
        self.trained_s += self._durations[-1]
        self._step_began = time.perf_counter()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step_began = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        record = Path(args.output_dir) / f"checkpoint-{state.global_step}" / _CLOCK
        if state.is_world_process_zero and record.parent.is_dir():
            record.write_text(json.dumps({"trained_s": self.trained_s}), encoding="ascii")
        self._step_began = time.perf_counter()

    def measures(self, history: list[dict[str, float]], best_step: int | None = None) -> Measures:
        """`history` is the trainer's log."""
        return Measures(
            steps=len(self._durations),
            seconds=time.perf_counter() - self._started,
            median_step_s=statistics.median(self._durations) if self._durations else 0.0,
            peak_memory_bytes=_peak_memory(),
            train_loss=_losses(history, "loss"),
            validation_loss=_losses(history, "eval_loss"),
            validation={name: found for name in METRICS if (found := _losses(history, f"eval_{name}"))},
            best_step=best_step,
        )


def trained_s_of(checkpoint: str | None) -> float:
    """How long the steps before a checkpoint took; 0 without one."""
    record = None if checkpoint is None else Path(checkpoint) / _CLOCK
    return float(json.loads(record.read_text(encoding="ascii"))["trained_s"]) if record and record.is_file() else 0.0


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
