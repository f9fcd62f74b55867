"""The learning curves of a run, as a picture in its work folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

_LOSSES = {"loss": "training", "eval_loss": "validation"}
_METRICS = {"eval_hr@5": "HR@5", "eval_hr@10": "HR@10", "eval_ndcg@5": "NDCG@5", "eval_ndcg@10": "NDCG@10"}


class Curves(TrainerCallback):
    """Draws curves.png after each validation."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "curves.png"

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            draw_curves(state.log_history, self._path)


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Losses and, where the engine was asked, its metrics over the steps of a Trainer's log."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    has_metrics = any(name in entry for entry in history for name in _METRICS)
    figure = Figure(figsize=(10 if has_metrics else 5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + has_metrics, squeeze=False)[0]
    for panel, lines, what in zip(panels, (_LOSSES, _METRICS), ("loss", "of validation users"), strict=False):
        for name, label in lines.items():
            points = [(entry["step"], entry[name]) for entry in history if name in entry]
            if points:
                panel.plot(*zip(*points, strict=True), label=label, marker="." if name != "loss" else None)
        panel.set_xlabel("step")
        panel.set_ylabel(what)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=120)
