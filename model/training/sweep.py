"""Training and evaluating variants of a run, into one table and one plot, for `vip5 sweep`.

A sweep file names the base run file and what each variant changes in it. The paper's figures (reduction factors, visual
tokens, adapter positions, encoders, text against images) are sweeps.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from model.bundle.layout import MANIFEST, TRAINING_RECORD, domain_file
from model.datasets.dataset import Dataset
from model.errors import ExistsError, TrainingError
from model.evaluation.comparison import write_comparison
from model.evaluation.evaluation import evaluate
from model.evaluation.options import EvaluationOptions
from model.planning.runtime import load_runtime
from model.progress import Progress, no_progress
from model.training.config import DomainData, Run, run_of
from model.training.run_documents import Places, convert
from model.training.sweep_file import SweepFile, Variant
from model.training.toml_lines import TomlFile
from model.training.tuning import tune


@dataclass(frozen=True)
class Sweep:
    """A valid sweep file; each run has its own folder below `out`."""

    out: Path
    options: EvaluationOptions
    runs: tuple[Run, ...]
    held_out: Mapping[str, Path]  # the data to evaluate a domain on, if not its own

    @property
    def table(self) -> Path:
        return self.out / "table.md"

    @property
    def plot(self) -> Path:
        return self.out / "plot.png"


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file and check its runs; raises TrainingError naming the file and the rule."""
    sweep = TomlFile.read(path)
    file = convert(sweep.document, SweepFile, Places(sweep))
    names = [variant.name for variant in file.variants]
    if not names or len(set(names)) != len(names):
        raise TrainingError(f"{sweep.place(['variants'])}: [[variants]] are {names}; name at least one, each once")
    base = TomlFile.read(path.resolve().parent / file.base)
    out = path.resolve().parent / file.out
    runs = tuple(
        _run(base, Places(base, sweep, ("variants", number, "set")), variant, out / variant.name)
        for number, variant in enumerate(file.variants)
    )
    options = EvaluationOptions(templates=file.templates, num_users=file.num_users, baselines=file.baselines)
    held_out = {name: path.resolve().parent / data for name, data in file.held_out.items()}
    unknown = sorted(held_out.keys() - {domain.name for run in runs for domain in run.file.domains})
    if unknown:
        raise TrainingError(
            f"{sweep.place(['held_out'])}: held_out names {', '.join(unknown)}, which no run has as a domain; "
            "name the domains of the base run"
        )
    return Sweep(out, options, runs, held_out)


def changed_variants(sweep: Sweep) -> list[str]:
    """Names of the variants that were trained with other settings than they have now."""
    return [run.name for run in sweep.runs if (run.out / MANIFEST).exists() and not _has_own_settings(run)]


def run_sweep(
    sweep: Sweep,
    *,
    device: str = "cpu",
    num_threads: int | None = None,
    restart: bool = False,
    replace: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Train and evaluate the variants that are not finished yet, then write the table and the plot.

    Each variant is trained in a separate process, so that its peak memory can be measured. `restart` discards the
    checkpoints of interrupted ones. Raises ExistsError for variants that were trained with other settings, unless
    `replace` is set, which trains them again.
    """
    changed = changed_variants(sweep)
    if changed and not replace:
        raise ExistsError(
            f"{sweep.out} has {', '.join(changed)}, trained with other settings than now; name another folder as out, "
            "or give --replace"
        )
    held_out = {name: Dataset.read(path) for name, path in sweep.held_out.items()}
    results = []
    for number, run in enumerate(sweep.runs):
        progress(f"training {run.name}", number, len(sweep.runs))
        if run.name in changed or not (run.out / MANIFEST).exists():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                process.submit(_train, run, device, num_threads, restart=restart, replace=replace).result()
            for _, result in _results_of(run):  # of the bundle that was replaced
                _answers_of(result).unlink(missing_ok=True)
        progress(f"evaluating {run.name}", number, len(sweep.runs))
        results += _evaluate(sweep.options, held_out, run, device, num_threads)
    write_comparison(results, sweep.table, sweep.plot)
    with sweep.table.open("a", encoding="utf-8") as table:
        table.write("\n" + _costs(sweep.runs))


def _run(base: TomlFile, places: Places, variant: Variant, folder: Path) -> Run:
    """A variant's run. It starts from the base run's `start`, or if that has none, from its `out`."""
    kept = {key: value for key, value in base.document.items() if key not in variant.without}
    merged = _merged(kept, variant.set)
    if merged.get("tune", "adapters") != "from_scratch":
        merged.setdefault("start", merged.get("out"))
    merged["out"], merged["work"] = str(folder / "bundle"), str(folder / "work")
    return run_of(variant.name, merged, places)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            merged[key] = _merged(base[key], value)
        else:
            merged[key] = value
    return merged


def _has_own_settings(run: Run) -> bool:
    return bool(_record(run)["run"] == json.loads(msgspec.json.encode(run.file)))


def _train(run: Run, device: str, num_threads: int | None, *, restart: bool, replace: bool) -> None:
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    tune(run, device=device, restart=restart, replace=replace)


def _evaluate(
    options: EvaluationOptions, held_out: Mapping[str, Dataset], run: Run, device: str, num_threads: int | None
) -> list[Path]:
    """Evaluate each domain of a run, on its own data unless `held_out` has others; returns the paths of the results."""
    runtime = load_runtime(run.out, device=device, num_threads=num_threads)
    results = []
    for domain, result in _results_of(run):
        dataset = held_out.get(domain.name) or Dataset.read(run.path(domain.data))
        evaluate(runtime, domain.name, dataset, options, journal=_answers_of(result)).write(result)
        results.append(result)
    return results


def _results_of(run: Run) -> list[tuple[DomainData, Path]]:
    """Each domain of a run, and the file of its result."""
    domains = run.file.domains
    names = [run.name if len(domains) == 1 else f"{run.name}-{domain.name}" for domain in domains]
    return [(domain, run.out.parent / f"{name}.json") for domain, name in zip(domains, names, strict=True)]


def _answers_of(result: Path) -> Path:
    return result.with_suffix(".answers.jsonl")


def _costs(runs: tuple[Run, ...]) -> str:
    """The costs of the runs, as a Markdown table."""
    lines = ["| run | trained | of all | ms a step | peak memory, MiB |", "| --- | ---: | ---: | ---: | ---: |"]
    for run in runs:
        record = _record(run)
        parameters, measures = record["parameters"], record["measures"]
        lines.append(
            f"| {run.name} | {parameters['trainable']:,} | {parameters['share']:.1%} "
            f"| {measures['median_step_s'] * 1000:.1f} | {measures['peak_memory_bytes'] / 2**20:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _record(run: Run) -> dict[str, Any]:
    path = run.out / domain_file(run.file.domains[0].name, TRAINING_RECORD)
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
