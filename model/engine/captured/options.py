"""Options of the captured engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from model.engine.captured.buckets import Bucket, Ladder
from model.engine.products import ProductPrecision
from model.engine.rankings import CERTIFIED_BEAM_LIMIT
from model.errors import EngineError

Precision = Literal["float32", "tfloat32", "bfloat16"]
"""`tfloat32` stores float32 and multiplies with a 10-bit mantissa; `bfloat16` has a 7-bit mantissa.

Only float32 proves rankings: the others' scores are off by more than any useful margin. `tfloat32` therefore runs
certified searches with float32 products; `bfloat16`, whose weights are rounded too, proves nothing.
"""

_DTYPES = {"float32": torch.float32, "tfloat32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CaptureOptions:
    """Precision, shapes and limits. Sums, norms, softmaxes and scores are float32 in every precision."""

    precision: Precision = "bfloat16"
    captures: bool = True  # False: run the same searches operator by operator, as on a CPU
    num_spare_slots: int = 4  # for domains added later; further ones need new banks and new captures
    ladder: Ladder = field(default_factory=Ladder)
    warm_up: tuple[Bucket, ...] | None = None  # captured at the start; None: the ladder's default buckets
    max_captures: int = 96
    memory_share: float = 0.9  # of the device's memory; the rest is for kernels, graphs and other libraries
    certified_beam_limit: int = CERTIFIED_BEAM_LIMIT

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.precision]

    def products(self, bucket: Bucket) -> ProductPrecision:
        """Precision of a search's float32 products."""
        return "high" if self.precision == "tfloat32" and not bucket.is_exact else "highest"


@dataclass
class CaptureCounts:
    """Counters of the captured engine."""

    captures: int = 0
    dropped: int = 0  # captures invalidated by a change of catalog or banks
    uncaptured: int = 0  # batches larger than the ladder
    splits: int = 0  # batches split for lack of memory


def read_buckets(path: Path) -> tuple[Bucket, ...]:
    """Read buckets that `vip5 bench --out` has written. Raises EngineError for an invalid file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read as JSON ({error}); write it with vip5 bench --out") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("buckets"), list):
        raise EngineError(f"{path} has no list `buckets`; write it with vip5 bench --out")
    return tuple(Bucket.from_json(each) for each in stored["buckets"])
