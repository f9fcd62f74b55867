"""The result of an evaluation, and its JSON file."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from model.bundle.folders import write_whole
from model.errors import DatasetError
from model.evaluation.exposure import Exposure
from model.evaluation.gaps import Groups
from model.evaluation.metrics import Estimate
from model.evaluation.options import EvaluationOptions
from model.network.config import Task

FORMAT_VERSION = 1

METRICS = (
    *("hr@1", "hr@5", "ndcg@5", "hr@10", "ndcg@10", "mrr@10"),
    *("bleu-1", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "rmse", "mae"),
)
"""In the order of the table's columns; NDCG@1 equals HR@1."""

_NUM_DIGITS = {"bleu": 2, "rouge": 2, "rmse": 3, "mae": 3, "popularity": 1, "novelty": 2}


@dataclass(frozen=True)
class Proofs:
    """How much of the answers is proven to be the true top under the model.

    `mean` is the mean length of the proven prefix, `share_by_length` the share of answers with at least that prefix.
    """

    mean: float
    share_by_length: dict[str, float]


@dataclass(frozen=True)
class Result:
    """The metrics of one template of the model, or of one baseline.

    `num_candidates` is the mean number of ranked items, None for texts. `degraded` counts answers by kind of
    degradation. `seconds` is the total time of the answers.
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
    num_users_left_out: int = 0  # users with nothing to rank beside the target
    num_out_of_reach: int = 0  # questions whose target is not active, or excluded with the history: counted as misses
    num_unrated: int | None = None  # texts that do not begin with the rating that the template asks for
    exposure: Exposure | None = None  # of rankings
    groups: Groups | None = None  # where groups were asked for


@dataclass(frozen=True)
class ExactComparison:
    """Beam search compared with the exact ranking of the whole catalog, for the same users.

    `same_order` and `same_items` are the shares of answers with the same items in the same or in any order, `recall` is
    the share of the true items that beam search found, and `differences` are its metrics minus the exact ones.
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
    """The result of an evaluation; `seconds` is the total time of the answers."""

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
    history_excluded: tuple[Result, ...] = ()
    """The results for next items with each user's history excluded, if both were asked for."""
    format: int = FORMAT_VERSION

    def write(self, path: Path) -> None:
        write_whole(path, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a result; raises DatasetError for any other file."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise DatasetError(f"{path} is not a result of vip5 evaluate: {error}; choose another file") from error

    def of(self, task: Task, name: str) -> Result:
        """The result of one template or baseline; raises KeyError if there is none."""
        for result in self.results:
            if (result.task, result.name) == (task, name):
                return result
        raise KeyError(f"{task} {name}")


def digits_of(metric: str) -> int:
    """The number of decimals to show for a metric."""
    return _NUM_DIGITS.get(metric.partition("@")[0].partition("-")[0], 4)


def interval(metric: str, estimate: Estimate) -> str:
    """A value with its interval in brackets."""
    digits = digits_of(metric)
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def hardware(device: str) -> str:
    """The hardware and the torch version, in one line."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
