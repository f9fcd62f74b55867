"""What runs on a device runs there or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from model.devices import require_device, training_device
from model.errors import EngineError
from model.training.config import read_run
from model.training.tuning import tune
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


def test_the_cpu_is_there() -> None:
    assert require_device("cpu") == torch.device("cpu")
    assert training_device("cpu") == "cpu"


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8932f937")
    for choose in (require_device, training_device):
        with pytest.raises(EngineError, match=f"device '{name}' is not available"):
            choose(name)


@without_gpu
def test_training_without_a_name_takes_what_is_there() -> None:
    assert training_device(None) == "cpu"


@pytest.mark.parametrize(
    ("visible", "name", "shown"),
    [(None, "cuda:1", "1"), ("3,GPU-8932f937", "cuda:1", "GPU-8932f937"), ("3, 5", "cuda:0", "3")],
)
def test_training_sees_no_other_gpu_than_the_named(
    visible: str | None, name: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.devices.require_device", torch.device)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert training_device(name) == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown


@without_gpu
def test_a_run_is_refused_and_not_trained_elsewhere(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, FROM_SCRATCH))
    with pytest.raises(EngineError, match="device 'cuda' is not available"):
        tune(run, device="cuda")
    assert not run.work.exists()
    assert not run.out.exists()
