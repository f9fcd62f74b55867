"""The result of an evaluation, as it is written to disk."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from model.errors import DatasetError
from model.evaluation.metrics import Estimate
from model.evaluation.options import EvaluationOptions
from model.network.config import Task

FORMAT_VERSION = 1

METRICS = (
    *("hr@1", "hr@5", "ndcg@5", "hr@10", "ndcg@10", "mrr@10"),
    *("bleu-1", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "rmse", "mae"),
)
"""In the order of a table's columns; NDCG@1 is HR@1."""

_NUM_DIGITS = {"bleu": 2, "rouge": 2, "rmse": 3, "mae": 3}


@dataclass(frozen=True)
class Proofs:
    """How much of the answers is proven to be the true top under the model.

    `mean` is the mean length of the proven prefix; `share_by_length` the share of answers that are proven so far.
    """

    mean: float
    share_by_length: dict[str, float]


@dataclass(frozen=True)
class Result:
    """What one template of the model, or one baseline, achieved.

    Ranked among so many candidates in the mean; None for texts. `degraded` counts answers by what they lacked, under
    the service's names. `seconds` is the time that all answers took together.
    """

    task: Task
    name: str
    is_baseline: bool
    num_users: int
    num_questions: int
    metrics: dict[str, Estimate]
    seconds: float
    num_candidates: float | None = None
    proofs: Proofs | None = None
    degraded: dict[str, int] = field(default_factory=dict)
    num_unrated: int | None = None  # texts that should have begun with a rating and did not


@dataclass(frozen=True)
class ExactComparison:
    """Beams against the exact ranking of the whole catalog, for the same users.

    The shares speak of the items that are answered: how often they are the same in the same order, how often the same
    in any order, and how many of the true ones the beams found. `metrics` are the beams' figures minus the exact ones.
    """

    name: str
    num_users: int
    same_order: float
    same_items: float
    recall: float
    share_certified: float
    mean_certified_beams: float
    beam_metrics: dict[str, Estimate]
    exact_metrics: dict[str, Estimate]
    differences: dict[str, Estimate]
    seconds: float


@dataclass(frozen=True)
class Report:
    """A whole evaluation; `options` and `dataset` say of what, `seconds` how long the answers took."""

    bundle: str
    domain: str
    dataset: str
    dataset_fingerprint: str
    indexing: str
    hardware: str
    options: EvaluationOptions
    seconds: float
    results: tuple[Result, ...]
    exact: tuple[ExactComparison, ...] = ()
    format: int = FORMAT_VERSION

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Raises DatasetError for a file that is not an evaluation's result."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise DatasetError(f"{path} is not the result of vip5 evaluate: {error}") from error

    def of(self, task: Task, name: str) -> Result:
        """The result of one template or baseline; raises KeyError."""
        for result in self.results:
            if (result.task, result.name) == (task, name):
                return result
        raise KeyError(f"{task} {name}")


def digits_of(metric: str) -> int:
    """How many digits a figure deserves after its point."""
    return _NUM_DIGITS.get(metric.partition("-")[0], 4)


def interval(metric: str, estimate: Estimate) -> str:
    """A value with its interval in brackets."""
    digits = digits_of(metric)
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def hardware(device: str) -> str:
    """One line for a person."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
