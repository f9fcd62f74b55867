"""The folder of a run's checkpoints and logs: which checkpoint a run resumes from, and what is left of other runs.

`run.json` has the settings of an unfinished run; only its checkpoints make a run unfinished. A run that failed before
its first checkpoint leaves nothing that the next one would have to mind.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec

from model.errors import TrainingError
from model.training.config import Run

_RECORD = "run.json"
_STATE = "trainer_state.json"  # the last file that the Trainer writes into a checkpoint
_CHECKPOINT = "checkpoint-"


def open_work_folder(run: Run, *, restart: bool) -> str | None:
    """The checkpoint to resume from, if any. Raises TrainingError if the checkpoints belong to another run.

    Call this when everything else that the run needs is known to be good.
    """
    checkpoint = _last_complete_checkpoint(run.work)
    if checkpoint is not None and (run.work / _RECORD).exists() and not restart:
        _require_same_settings(run)
        return str(checkpoint)
    if int(os.environ.get("RANK", "0")) == 0:
        _clear(run.work)
        run.work.mkdir(parents=True, exist_ok=True)
        (run.work / _RECORD).write_text(json.dumps(msgspec.to_builtins(run.file), indent=2), encoding="utf-8")
    return None


def close_work_folder(run: Run) -> None:
    """Note that the run is finished; its checkpoints are deleted by the next one."""
    (run.work / _RECORD).unlink()


def _require_same_settings(run: Run) -> None:
    try:
        before = json.loads((run.work / _RECORD).read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if before != json.loads(json.dumps(msgspec.to_builtins(run.file))):
        raise TrainingError(
            f"{run.work} holds checkpoints of an unfinished run with other settings; finish that run with its own "
            "run file, set work to another folder, or discard the checkpoints with --restart"
        )


def _last_complete_checkpoint(work: Path) -> Path | None:
    """The latest checkpoint that was written to its end."""
    complete = {_step_of(folder): folder for folder in work.glob(f"{_CHECKPOINT}*") if _is_complete(folder)}
    return complete[max(complete)] if complete else None


def _step_of(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix(_CHECKPOINT)
    return int(number) if number.isdecimal() else -1


def _is_complete(checkpoint: Path) -> bool:
    try:
        return isinstance(json.loads((checkpoint / _STATE).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _clear(work: Path) -> None:
    """Delete the checkpoints of an earlier run, and keep its logs."""
    for checkpoint in work.glob(f"{_CHECKPOINT}*"):
        shutil.rmtree(checkpoint)
