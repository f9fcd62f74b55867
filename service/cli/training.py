"""`vip5 train` and `vip5 sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import NumThreads, Restart, TrainingDevice, input_file
from service.cli.terminal import progress_bar

EXAMPLE = "Example: vip5 train --config runs/toys.toml"
SWEEP_EXAMPLE = "Example: vip5 sweep --config runs/reduction.toml"


def train(
    config: Annotated[Path, input_file("The run file (TOML).")],
    restart: Restart = False,
    device: TrainingDevice = None,
    num_threads: NumThreads = None,
) -> None:
    """Tune domains as a run file says, and write them into a bundle.

    An interrupted run continues from its last checkpoint when it is started again. Start it with torchrun to use
    several GPUs.
    """
    import torch

    from model.training.config import read_run
    from model.training.tuning import device_of, tune

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    run = read_run(config)
    with progress_bar() as progress:
        result = tune(run, device=device_of(device), restart=restart, progress=progress)
    counts, measures = result.counts, result.measures
    typer.echo(
        f"{counts.trainable:,} of {counts.total:,} parameters were trained ({counts.share:.2%}); "
        f"{measures.steps} steps in {measures.seconds:.0f} s, {measures.median_step_s * 1000:.1f} ms each (median);"
        f" peak memory {measures.peak_memory_bytes / 2**20:.0f} MiB"
    )
    for line in result.notices:
        typer.echo(line, err=True)
    if measures.validation_loss:
        typer.echo(
            f"validation loss {measures.validation_loss[-1][1]:.4f} after {measures.validation_loss[-1][0]} steps"
        )
    if result.bundle_hash is not None:
        names = ", ".join(domain.name for domain in run.file.domains)
        typer.echo(f"wrote {names} into {run.out}, bundle {result.bundle_hash}")


def sweep(
    config: Annotated[Path, input_file("The sweep file (TOML).")],
    device: TrainingDevice = None,
    num_threads: NumThreads = None,
) -> None:
    """Train and evaluate variants of a run, and put them into one table and one plot.

    What an earlier, interrupted sweep has trained or answered is kept and not repeated.
    """
    from model.training.sweep import read_sweep, run_sweep
    from model.training.tuning import device_of

    runs = read_sweep(config)
    with progress_bar() as progress:
        run_sweep(runs, device=device_of(device), num_threads=num_threads, progress=progress)
    typer.echo(runs.table.read_text(encoding="utf-8"), nl=False)
    typer.echo(f"wrote {runs.table} and {runs.plot}")
