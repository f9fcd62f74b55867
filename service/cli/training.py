"""`vip5 train` and `vip5 sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.failures import require
from service.cli.options import NumThreads, Replace, Restart, TrainingDevice, input_file
from service.cli.replacing import may_replace
from service.cli.terminal import progress_bar

EXAMPLE = "Example: vip5 train --config runs/toys.toml"
SWEEP_EXAMPLE = "Example: vip5 sweep --config runs/reduction.toml"

_OF_TRAINING = ("transformers", "accelerate", "tensorboard")
_OF_SWEEPS = ("matplotlib", "rouge_score", "sacrebleu", "scipy")


def _print_schema(context: typer.Context, is_wanted: bool) -> None:  # noqa: FBT001  # typer calls back with the flag's value
    """Print the schema of the command's file, and exit."""
    if not is_wanted:
        return
    require("msgspec")
    from model.training.config import RunFile
    from model.training.run_documents import json_schema
    from model.training.sweep_file import SweepFile

    typer.echo(json_schema(SweepFile if context.info_name == "sweep" else RunFile), nl=False)
    raise typer.Exit


Schema = Annotated[
    bool,
    typer.Option(
        "--schema", help="Print the file's JSON schema, for editors, and exit.", callback=_print_schema, is_eager=True
    ),
]


def train(
    config: Annotated[Path, input_file("The run file (TOML).")],
    restart: Restart = False,
    replace: Replace = False,
    device: TrainingDevice = None,
    num_threads: NumThreads = None,
    _schema: Schema = False,
) -> None:
    """Tune domains as a run file says, and write them into a bundle.

    An interrupted run continues from its last checkpoint when it is started again. What is replaced stays in place
    until the run has finished. Start it with torchrun to use several GPUs.
    """
    require(*_OF_TRAINING)
    import torch

    from model.devices import training_device
    from model.training.config import read_run
    from model.training.preparation import replaced_by
    from model.training.tuning import tune

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    run = read_run(config)
    place = training_device(device)
    replace = may_replace(replaced_by(run), "name another bundle as out", replace=replace)
    with progress_bar() as progress:
        result = tune(
            run,
            device=place,
            restart=restart,
            replace=replace,
            progress=progress,
            notice=lambda line: typer.echo(line, err=True),
        )
    counts, measures = result.counts, result.measures
    typer.echo(
        f"{counts.trainable:,} of {counts.total:,} parameters were trained ({counts.share:.2%}); "
        f"{measures.steps} steps in {measures.seconds:.0f} s, {measures.median_step_s * 1000:.1f} ms each (median);"
        f" peak memory {measures.peak_memory_bytes / 2**20:.0f} MiB"
    )
    if measures.validation_loss:
        typer.echo(
            f"validation loss {measures.validation_loss[-1][1]:.4f} after {measures.validation_loss[-1][0]} steps"
        )
    if result.bundle_hash is not None:
        names = ", ".join(domain.name for domain in run.file.domains)
        typer.echo(f"wrote {names} into {run.out}, bundle {result.bundle_hash}")


def sweep(
    config: Annotated[Path, input_file("The sweep file (TOML).")],
    restart: Restart = False,
    replace: Replace = False,
    device: TrainingDevice = None,
    num_threads: NumThreads = None,
    _schema: Schema = False,
) -> None:
    """Train and evaluate variants of a run, and put them into one table and one plot.

    What an earlier, interrupted sweep has trained or answered is kept and not repeated. A variant whose settings have
    changed since then is trained again with --replace, or with --restart if its training was interrupted.
    """
    require(*_OF_TRAINING, *_OF_SWEEPS)
    from model.devices import training_device
    from model.training.sweep import changed_variants, read_sweep, run_sweep

    runs = read_sweep(config)
    place = training_device(device)
    changed = changed_variants(runs)
    present = f"{runs.out} has {', '.join(changed)}, trained with other settings than now" if changed else None
    replace = may_replace(present, "name another folder as out", replace=replace)
    with progress_bar() as progress:
        run_sweep(runs, device=place, num_threads=num_threads, restart=restart, replace=replace, progress=progress)
    typer.echo(runs.table.read_text(encoding="utf-8"), nl=False)
    typer.echo(f"wrote {runs.table} and {runs.plot}")
