"""Options of the captured engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from model.engine.captured.buckets import Bucket, Ladder
from model.engine.rankings import CERTIFIED_BEAM_LIMIT
from model.errors import EngineError

Precision = Literal["float32", "tfloat32", "bfloat16"]
"""`tfloat32` holds numbers in float32 and multiplies them with 10 bits behind the point, bfloat16 has 7 of them."""

_DTYPES = {"float32": torch.float32, "tfloat32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CaptureOptions:
    """Precision, shapes and limits; sums, norms, softmaxes and scores are float32 in each precision."""

    precision: Precision = "bfloat16"
    captures: bool = True  # False runs the same searches operator by operator, as on a CPU
    num_spare_slots: int = 4  # for domains that come later; more than that makes new banks and new captures
    ladder: Ladder = field(default_factory=Ladder)
    warm_up: tuple[Bucket, ...] | None = None  # what is captured at the start; None for the ladder's choice
    max_captures: int = 96
    certified_beam_limit: int = CERTIFIED_BEAM_LIMIT

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.precision]


@dataclass
class CaptureCounts:
    """Counts of what the captured engine did besides answering."""

    captures: int = 0
    dropped: int = 0  # captures that a change of catalog or banks made useless
    uncaptured: int = 0  # batches beyond the ladder
    splits: int = 0  # batches that did not fit in memory


def read_buckets(path: Path) -> tuple[Bucket, ...]:
    """Buckets of a file that `vip5 bench --out` made. Raises EngineError for anything else."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read as JSON ({error}); write it with vip5 bench --out") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("buckets"), list):
        raise EngineError(f"{path} holds no list `buckets`; write it with vip5 bench --out")
    return tuple(Bucket.from_json(each) for each in stored["buckets"])
